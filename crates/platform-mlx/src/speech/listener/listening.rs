//! How an encoder's places attend to each other, and how windows are encoded without MLX's graph.
//!
//! All windows are of one length: on the CPU the graph of the first is noted, kernel by kernel, and every window runs the same
//! [`Program`], whose intermediate results share one piece of memory that stays warm. (Fresh memory for each of them cost a tenth
//! of the time and more.) Between kernels others may have the device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlx_rs::{Stream, fast::scaled_dot_product_attention, transforms::eval};
use vllm_kernels_cpu::{KvKind, Pool};
use vllm_platform::Mel;

use super::{
    ListenerModel,
    heard::{HeardWindow, Kept},
    hearing::{ArrayWindow, attention_of},
};
use crate::{
    Error, Ops, Result, Tensor,
    batch::dim,
    ffi::{
        Output, cpu_primitive,
        program::{Program, Scratch},
    },
    kv::AttentionSpec,
    model::LayerSpec,
    replay::recording::{compile, record},
};

/// A window's places, all of which see each other.
pub struct Listening<'a> {
    place: Place<'a>,
}

enum Place<'a> {
    /// Keys and values of the layer that attends are put into pools, one for each shape of layers.
    Cpu { pools: Vec<Arc<Kept>>, layers: &'a [LayerSpec], threads: Arc<Pool>, stream: Stream },
    /// MLX attends over the arrays as they are.
    Arrays { pause: &'a mut dyn FnMut() },
}

impl Listening<'_> {
    /// `q`, `k` and `v` [places, heads, head_dim] → [places, heads · head_dim].
    ///
    /// # Errors
    /// MLX's own.
    pub fn attend(&mut self, layer: usize, [q, k, v]: [&Tensor; 3], spec: AttentionSpec) -> Result<Tensor> {
        let shape = [q.dim(0), q.dim(1) * q.dim(2)];
        match &mut self.place {
            Place::Cpu { pools, layers, threads, stream } => {
                let same = layers.iter().position(|other| *other == layers[layer]).unwrap_or(layer);
                let (pool, threads, how) = (Arc::clone(&pools[same]), Arc::clone(threads), attention_of(spec, false));
                let (places, outputs) = (q.dim(0) as usize, [Output::f32(&shape)]);
                let [out] = cpu_primitive(stream, c"window_attention", &[q, k, v], outputs, move |inputs, outputs| {
                    pool.write(0, &threads, 0, inputs[1].f32(), inputs[2].f32());
                    pool.attend(0, &threads, inputs[0].f32(), places, &how, outputs[0].f32());
                    Ok(())
                })?;
                Ok(out)
            }
            Place::Arrays { pause } => {
                let [q, k, v] = [by_head(q)?, by_head(k)?, by_head(v)?];
                let out = scaled_dot_product_attention(&q, &k, &v, spec.scale, None, None)?;
                let out = out.transpose_axes(&[0, 2, 1, 3])?.reshape(&shape)?;
                eval([&out])?;
                pause();
                Ok(out)
            }
        }
    }
}

/// Rows [places, heads, dim] as MLX's attention wants them: [1, heads, places, dim].
fn by_head(x: &Tensor) -> Result<Tensor> {
    Ok(x.transpose_axes(&[1, 0, 2])?.expand_dims(0)?)
}

/// Encodes a window by MLX's own operations.
pub(super) fn encode_arrays(model: &dyn ListenerModel, mel: &Tensor, pause: &mut dyn FnMut()) -> Result<ArrayWindow> {
    let encoded = model.encode(mel, &mut Listening { place: Place::Arrays { pause } })?;
    let layer = |layer| -> Result<[Tensor; 2]> {
        let [k, v] = model.heard(layer, &encoded)?;
        Ok([by_head(&k)?, by_head(&v)?])
    };
    let layers = (0..model.decoder_layers().len()).map(layer).collect::<Result<Vec<_>>>()?;
    eval(layers.iter().flatten())?;
    Ok(layers)
}

/// Encodes windows on the CPU.
pub(super) struct Encoding {
    program: Program,
    scratch: Scratch,
    current: Arc<Mutex<Current>>,
    layers: Vec<LayerSpec>,
    places: usize,
    kind: KvKind,
}

/// What the program is run for.
#[derive(Default)]
struct Current {
    /// [frames, bands]
    mel: Vec<f32>,
    window: Option<Arc<HeardWindow>>,
}

impl Encoding {
    /// Notes the model's operations. What it hears is kept in numbers of `kind`.
    ///
    /// # Errors
    /// If it has operations that aren't ours, or the system refuses memory.
    pub fn new(model: &dyn ListenerModel, ops: &Ops, kind: KvKind) -> Result<Self> {
        let (threads, stream) = ops.threads().ok_or_else(|| Error::Plan("the CPU's encoder elsewhere".into()))?;
        let (info, layers) = (model.listener_info(), model.encoder_layers());
        let pool = |layer: &LayerSpec| Ok(Arc::new(Kept::new(&[*layer], info.encoded_frames, KvKind::F32)?));
        let pools = layers.iter().map(pool).collect::<Result<_>>()?;
        let (threads, of_decoder) = (Arc::clone(threads), model.decoder_layers());
        let place = Place::Cpu { pools, layers: &layers, threads: Arc::clone(&threads), stream: stream.clone() };
        let current = Arc::new(Mutex::new(Current::default()));
        let build = || -> Result<Option<Tensor>> {
            let (shape, given) = ([dim(info.window_frames), dim(model.mel().bands)], Arc::clone(&current));
            let [mel] = cpu_primitive(stream, c"spectrogram", &[], [Output::f32(&shape)], move |_, outputs| {
                outputs[0].f32().copy_from_slice(&lock(&given).mel);
                Ok(())
            })?;
            let encoded = model.encode(&mel, &mut Listening { place })?;
            let mut last = None;
            for layer in 0..of_decoder.len() {
                let [k, v] = model.heard(layer, &encoded)?;
                let (current, threads) = (Arc::clone(&current), Arc::clone(&threads));
                // Of no meaning, but an operation gives something.
                let outputs = [Output::f32(&[1])];
                let [kept] = cpu_primitive(stream, c"keep", &[&k, &v], outputs, move |inputs, outputs| {
                    let window = lock(&current).window.clone().ok_or("no window")?;
                    window.kept.write(layer, &threads, 0, inputs[0].f32(), inputs[1].f32());
                    outputs[0].f32().fill(0.0);
                    Ok(())
                })?;
                last = Some(kept);
            }
            Ok(last)
        };
        let (last, operations) = record(build)?;
        let last = last.ok_or_else(|| Error::Config("a decoder without layers".into()))?;
        let program = compile(operations, &last, &[], |id| ops.is_constant(id)).map_err(Error::Plan)?;
        let places = info.encoded_frames;
        Ok(Self { program, scratch: Scratch::default(), current, layers: of_decoder, places, kind })
    }

    /// A window's keys and values; `pause` is called between kernels.
    ///
    /// # Errors
    /// A kernel's, or if the system refuses memory.
    pub fn run(&mut self, mel: &Mel, pause: &mut dyn FnMut()) -> Result<Arc<HeardWindow>> {
        let kept = Kept::new(&self.layers, self.places, self.kind)?;
        let window = Arc::new(HeardWindow { kept, places: self.places });
        *lock(&self.current) = Current { mel: mel.numbers.clone(), window: Some(Arc::clone(&window)) };
        let outcome = self.program.run_with_pauses(&mut self.scratch, &[], None, pause).map(drop);
        *lock(&self.current) = Current::default();
        outcome.map(|()| window)
    }
}

fn lock(current: &Mutex<Current>) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}
