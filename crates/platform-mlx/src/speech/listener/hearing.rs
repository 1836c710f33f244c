//! How a decoder attends to its own text and to what it hears.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use mlx_rs::{
    Stream,
    fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention},
    ops::{concatenate, indexing::TryIndexOp},
};
use vllm_kernels_cpu::{Attention, Pool};

use super::heard::HeardText;
use crate::{
    Batch, Layout, Result, Span, Tensor,
    batch::dim,
    ffi::{Output, cpu_primitive},
    kv::AttentionSpec,
};

/// Keys and values of a window's layers, on devices whose operations are MLX's own: [1, heads, places, head_dim] each.
pub(super) type ArrayWindow = Vec<[Tensor; 2]>;

/// A text about a window, likewise.
pub(super) struct ArrayText {
    /// By layer; `None` as long as the text is empty.
    pub own: Vec<Option<[Tensor; 2]>>,
    pub window: Rc<ArrayWindow>,
}

/// Where the rows of a batch of texts keep what they attend to.
pub(super) enum Place {
    /// In pools, which the batch's layout names.
    Cpu { threads: Arc<Pool>, stream: Stream },
    /// In arrays, one for each sequence of the batch.
    Arrays(Vec<Rc<RefCell<ArrayText>>>),
}

/// The texts of one batch, and what they hear.
pub struct Hearing {
    pub(super) place: Place,
    /// The queries that each layer has asked its window with, if they are wanted.
    pub(super) asked: Option<Vec<Tensor>>,
}

impl Hearing {
    /// Stores the rows' keys and values and attends over all that their texts hold, causally.
    ///
    /// `q` [tokens, heads, head_dim], `k` and `v` [tokens, kv_heads, head_dim] → [tokens, heads · head_dim].
    ///
    /// # Errors
    /// MLX's own.
    pub fn attend_to_text(
        &mut self,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        batch: &Batch,
        spec: AttentionSpec,
    ) -> Result<Tensor> {
        let texts = match &self.place {
            Place::Cpu { threads, stream } => {
                let (threads, layout, how) = (Arc::clone(threads), batch.at_evaluation(), attention_of(spec, true));
                let shape = [q.dim(0), q.dim(1) * q.dim(2)];
                let outputs = [Output::f32(&shape)];
                let [out] = cpu_primitive(stream, c"text_attention", &[q, k, v], outputs, move |inputs, outputs| {
                    let ([q, k, v], width) = ([0, 1, 2].map(|i| inputs[i].f32()), width(inputs[1].shape()));
                    each_text(&threads, &layout.get(), q, outputs[0].f32(), |text, span, q, out| {
                        let [k, v] = [k, v].map(|x| rows(x, width, span));
                        text.kept.write(layer, &threads, span.start, k, v);
                        text.kept.attend(layer, &threads, q, span.start + span.len, &how, out);
                    });
                    Ok(())
                })?;
                return Ok(out);
            }
            Place::Arrays(texts) => texts,
        };
        each_array(q, batch, |i, span, q| {
            let place = &mut texts[i].borrow_mut().own[layer];
            let (k, v) = (by_head(k, span)?, by_head(v, span)?);
            let [k, v] = match place.take() {
                Some([before, values]) => [concatenate(&[before, k], 2)?, concatenate(&[values, v], 2)?],
                None => [k, v],
            };
            let mask = (span.len > 1).then_some(ScaledDotProductAttentionMask::Causal);
            let out = scaled_dot_product_attention(q, &k, &v, spec.scale, mask, None)?;
            *place = Some([k, v]);
            Ok(out)
        })
    }

    /// Attends to the windows that the texts are about: `q` [tokens, heads, head_dim] → [tokens, heads · head_dim].
    ///
    /// # Errors
    /// MLX's own.
    pub fn attend_to_sound(&mut self, layer: usize, q: &Tensor, batch: &Batch, spec: AttentionSpec) -> Result<Tensor> {
        if let Some(asked) = &mut self.asked {
            asked.push(q.clone());
        }
        let texts = match &self.place {
            Place::Cpu { threads, stream } => {
                let (threads, layout, how) = (Arc::clone(threads), batch.at_evaluation(), attention_of(spec, false));
                let shape = [q.dim(0), q.dim(1) * q.dim(2)];
                let outputs = [Output::f32(&shape)];
                let [out] = cpu_primitive(stream, c"sound_attention", &[q], outputs, move |inputs, outputs| {
                    each_text(&threads, &layout.get(), inputs[0].f32(), outputs[0].f32(), |text, _, q, out| {
                        let window = &text.window;
                        window.kept.attend(layer, &threads, q, window.places, &how, out);
                    });
                    Ok(())
                })?;
                return Ok(out);
            }
            Place::Arrays(texts) => texts,
        };
        each_array(q, batch, |i, _, q| {
            let window = Rc::clone(&texts[i].borrow().window);
            let [k, v] = &window[layer];
            Ok(scaled_dot_product_attention(q, k, v, spec.scale, None, None)?)
        })
    }
}

pub(super) fn attention_of(spec: AttentionSpec, causal: bool) -> Attention {
    Attention { heads: spec.heads, scale: spec.scale, causal, window: None, softcap: None }
}

/// Numbers of a row.
fn width(shape: &[i32]) -> usize {
    shape[1..].iter().map(|&n| n as usize).product()
}

/// The rows of a sequence of x [rows, width].
fn rows(x: &[f32], width: usize, span: Span) -> &[f32] {
    &x[span.first * width..(span.first + span.len) * width]
}

/// Calls `f` with each text, its queries and room for as many numbers, on all threads if there are several.
fn each_text(
    threads: &Pool,
    layout: &Layout,
    q: &[f32],
    mut out: &mut [f32],
    f: impl Fn(&HeardText, Span, &[f32], &mut [f32]) + Sync,
) {
    let width = q.len() / layout.len();
    let mut parts = Vec::with_capacity(layout.heard().len());
    for (text, span) in layout.heard().iter().zip(layout.spans()) {
        let (part, rest) = std::mem::take(&mut out).split_at_mut(span.len * width);
        out = rest;
        parts.push((text, span, Mutex::new(part)));
    }
    threads.run(parts.len(), |i| {
        let (text, span, part) = &parts[i];
        let q = &q[span.first * width..(span.first + span.len) * width];
        f(text, *span, q, &mut part.lock().unwrap_or_else(PoisonError::into_inner));
    });
}

/// The rows of a sequence of x [rows, heads, dim] as MLX's attention wants them: [1, heads, rows, dim].
fn by_head(x: &Tensor, span: Span) -> Result<Tensor> {
    let x = x.try_index(dim(span.first)..dim(span.first + span.len))?;
    Ok(x.transpose_axes(&[1, 0, 2])?.expand_dims(0)?)
}

/// Calls `f` with each sequence's number, place and queries [1, heads, rows, dim], and puts the results, of the same shape, side by
/// side: [rows, heads · dim].
fn each_array(q: &Tensor, batch: &Batch, mut f: impl FnMut(usize, Span, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let width = q.dim(1) * q.dim(2);
    let mut outputs = Vec::new();
    for (i, span) in batch.layout().spans().enumerate() {
        let out = f(i, span, &by_head(q, span)?)?;
        outputs.push(out.transpose_axes(&[0, 2, 1, 3])?.reshape(&[dim(span.len), width])?);
    }
    Ok(concatenate(&outputs, 0)?)
}
