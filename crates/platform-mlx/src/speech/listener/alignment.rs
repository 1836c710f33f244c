//! How much heads attend from tokens to places of a sound.

use mlx_rs::{Dtype, ops::indexing::TryIndexOp, transforms::eval};
use vllm_platform::{TokenId, WindowId};

use super::{Hearing, MlxListener, Window, numbers};
use crate::{Batch, Error, Layout, Matrix, Projection, Result, Tensor, batch::dim, layout::TextTokens};

impl MlxListener {
    /// See [`Listener::alignment`](vllm_platform::Listener::alignment).
    pub(super) fn align(&self, window: WindowId, tokens: &[TokenId]) -> Result<Vec<f32>> {
        let most = self.listener.max_text_len;
        if tokens.is_empty() || tokens.len() > most {
            return Err(Error::Plan(format!("a text of {} tokens; the model takes 1 to {most}", tokens.len())));
        }
        let text = self.text(window)?;
        let (place, pools) = self.place([&text.kept].into_iter());
        let layout = Layout::of_texts(&[TextTokens { start: 0, tokens, wanted: 1 }], pools)?;
        let mut hearing = Hearing { place, asked: Some(Vec::new()) };
        // What the last layer makes of what it hears is of no interest, and not computed.
        self.model.decode(&Batch::new(layout.into()), &mut hearing)?;
        let asked = hearing.asked.unwrap_or_default();
        eval(&asked)?;
        let mut all = Vec::new();
        for &(layer, head) in &self.listener.alignment_heads {
            let spec = &self.layers[layer];
            let q = asked[layer].try_index((.., dim(head), ..))?.contiguous()?;
            let keys = Matrix::Dense(self.keys(window, layer, head)?);
            let [scores] = self.machine.ops.linear(&q, [Projection::plain(&keys)])?;
            let scores = scores.as_dtype(Dtype::Float32)?.contiguous()?;
            eval([&scores])?;
            let scale = (spec.head_dim as f32).powf(-0.5);
            all.extend(numbers(&scores)?.iter().map(|score| score * scale));
        }
        Ok(all)
    }

    /// The keys of one head: [places, head_dim].
    fn keys(&self, window: WindowId, layer: usize, head: usize) -> Result<Tensor> {
        Ok(match self.window(window)? {
            Window::Arrays(window) => window[layer][0].try_index((0, dim(head), .., ..))?.contiguous()?,
            Window::Pools(window) => {
                let width = self.layers[layer].head_dim;
                let all = window.kept.keys(layer, window.places);
                let of_head = all.chunks_exact(width).skip(head).step_by(self.layers[layer].kv_heads);
                let keys: Vec<f32> = of_head.flatten().copied().collect();
                Tensor::from_slice(&keys, &[dim(window.places), dim(width)])
            }
        })
    }
}
