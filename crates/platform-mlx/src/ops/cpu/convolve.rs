//! Convolutions in one dimension, and what stands around them.

use std::sync::Arc;

use vllm_kernels_cpu::{self as kernels, Taps, TransposedTaps};

use super::{Cpu, require_f32};
use crate::{
    Error, Result, Tensor,
    batch::dim,
    ffi::{Output, View, cpu_primitive},
    ops::convolve::{ChannelMap, Inlet, Nonlinearity, Outlet, TransposedGeometry, frames_of, with_frames},
};

/// An [`Inlet`] without its arrays.
#[derive(Clone, Copy)]
struct InletForm {
    mapped: bool,
    function: FunctionForm,
}

#[derive(Clone, Copy)]
enum FunctionForm {
    Identity,
    LeakyRelu(f32),
    Snake,
}

impl InletForm {
    /// The form, whose arrays join `inputs`.
    fn of<'a>(inlet: Inlet<'a>, channels: usize, inputs: &mut Vec<&'a Tensor>) -> Result<Self> {
        let first = inputs.len();
        inputs.extend(inlet.map.iter().flat_map(|map| [&map.scale, &map.shift]));
        let function = match inlet.function {
            Nonlinearity::Identity => FunctionForm::Identity,
            Nonlinearity::LeakyRelu(slope) => FunctionForm::LeakyRelu(slope),
            Nonlinearity::Snake(alpha) => {
                inputs.push(alpha);
                FunctionForm::Snake
            }
        };
        for array in &inputs[first..] {
            require_f32(array)?;
            if array.size() != channels {
                let found = array.shape();
                return Err(Error::Plan(format!("a list {found:?} for an inlet of {channels} channels")));
            }
        }
        Ok(Self { mapped: inlet.map.is_some(), function })
    }

    /// The inlet over the graph inputs from `inputs[*next]` on, which it consumes.
    fn bind<'a>(self, inputs: &[View<'a>], next: &mut usize) -> kernels::Inlet<'a> {
        let mut take = || {
            *next += 1;
            inputs[*next - 1].f32()
        };
        let affine = self.mapped.then(|| [take(), take()]);
        let function = match self.function {
            FunctionForm::Identity => kernels::Nonlinearity::Identity,
            FunctionForm::LeakyRelu(slope) => kernels::Nonlinearity::LeakyRelu(slope),
            FunctionForm::Snake => kernels::Nonlinearity::Snake(take()),
        };
        kernels::Inlet { affine, function }
    }
}

fn require_channels(found: usize, wanted: usize) -> Result<()> {
    if found == wanted { Ok(()) } else { Err(Error::Plan(format!("{found} channels for a convolution of {wanted}"))) }
}

impl Cpu {
    pub(in super::super) fn conv1d(
        &self,
        x: &Tensor,
        taps: &Arc<Taps>,
        inlet: Inlet<'_>,
        outlet: Outlet<'_>,
    ) -> Result<Tensor> {
        require_f32(x)?;
        let [batch, frames, channels] = frames_of(x)?;
        require_channels(channels, taps.channels())?;
        let shape = with_frames(x, taps.output(frames), taps.outputs());
        let mut inputs = vec![x];
        let form = InletForm::of(inlet, channels, &mut inputs)?;
        if let Some(residual) = outlet.residual {
            require_f32(residual)?;
            if residual.shape() != shape {
                let found = residual.shape();
                return Err(Error::Plan(format!("a residual {found:?} beside a convolution's result {shape:?}")));
            }
            inputs.push(residual);
        }
        let (residual, factor) = (outlet.residual.is_some(), outlet.factor);
        let (pool, taps) = (Arc::clone(&self.pool), Arc::clone(taps));
        let outputs = [Output::f32(&shape)];
        let [y] = cpu_primitive(&self.stream, c"conv1d", &inputs, outputs, move |inputs, outputs| {
            let mut next = 1;
            let inlet = form.bind(inputs, &mut next);
            let outlet = kernels::Outlet { residual: residual.then(|| inputs[next].f32()), factor };
            let y = outputs[0].f32();
            kernels::convolve(&pool, inputs[0].f32(), [batch, frames], &taps, &inlet, &outlet, y);
            Ok(())
        })?;
        Ok(y)
    }

    pub(in super::super) fn conv_transpose1d(
        &self,
        x: &Tensor,
        taps: &Arc<TransposedTaps>,
        geometry: TransposedGeometry,
        inlet: Inlet<'_>,
    ) -> Result<Tensor> {
        require_f32(x)?;
        let [batch, frames, channels] = frames_of(x)?;
        if batch != 1 {
            return Err(Error::Plan(format!("a transposed convolution of a batch of {batch}")));
        }
        require_channels(channels, taps.channels())?;
        let TransposedGeometry { padding, output_padding, .. } = geometry;
        let shape = with_frames(x, taps.output(frames, padding, output_padding), taps.outputs());
        let mut inputs = vec![x];
        let form = InletForm::of(inlet, channels, &mut inputs)?;
        let (pool, taps) = (Arc::clone(&self.pool), Arc::clone(taps));
        let outputs = [Output::f32(&shape)];
        let [y] = cpu_primitive(&self.stream, c"conv_transpose1d", &inputs, outputs, move |inputs, outputs| {
            let inlet = form.bind(inputs, &mut 1);
            let y = outputs[0].f32();
            kernels::convolve_transposed(&pool, inputs[0].f32(), &taps, [padding, output_padding], &inlet, y);
            Ok(())
        })?;
        Ok(y)
    }

    pub(in super::super) fn admit(&self, x: &Tensor, inlet: Inlet<'_>) -> Result<Tensor> {
        require_f32(x)?;
        let [_, _, channels] = frames_of(x)?;
        let mut inputs = vec![x];
        let form = InletForm::of(inlet, channels, &mut inputs)?;
        let pool = Arc::clone(&self.pool);
        let outputs = [Output::f32(x.shape())];
        let [y] = cpu_primitive(&self.stream, c"admit", &inputs, outputs, move |inputs, outputs| {
            let inlet = form.bind(inputs, &mut 1);
            kernels::admit(&pool, inputs[0].f32(), channels, &inlet, outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }

    pub(in super::super) fn adaptive_norm(&self, x: &Tensor, style: &Tensor, eps: f32) -> Result<ChannelMap> {
        require_f32(x)?;
        require_f32(style)?;
        let [batch, frames, channels] = frames_of(x)?;
        if batch != 1 || frames == 0 || style.size() != 2 * channels {
            let (x, style) = (x.shape(), style.shape());
            return Err(Error::Plan(format!("an adaptive norm of {x:?} by a style {style:?}")));
        }
        let pool = Arc::clone(&self.pool);
        let shape = [dim(channels)];
        let outputs = [Output::f32(&shape); 2];
        let [scale, shift] =
            cpu_primitive(&self.stream, c"adaptive_norm", &[x, style], outputs, move |inputs, outputs| {
                let [scale, shift] = outputs else { return Err("two outputs".into()) };
                let (gamma, beta) = inputs[1].f32().split_at(channels);
                let gain: Vec<f32> = gamma.iter().map(|gamma| 1.0 + gamma).collect();
                kernels::instance_affine(&pool, inputs[0].f32(), &gain, beta, eps, scale.f32(), shift.f32());
                Ok(())
            })?;
        Ok(ChannelMap { scale, shift })
    }

    pub(in super::super) fn sin(&self, x: &Tensor) -> Result<Tensor> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let [y] = cpu_primitive(&self.stream, c"sin", &[x], [Output::f32(x.shape())], move |inputs, outputs| {
            kernels::sin(&pool, inputs[0].f32(), outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }
}
