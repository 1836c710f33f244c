//! The Conformer: every eighth frame, say, and then blocks of attention to everything and convolution over what is near.

use vllm_platform_mlx::{
    Activation, Bias, ConvGeometry, LoadContext, Ops, Result, Tensor,
    mlx_rs::ops::{conv2d, maximum, sigmoid, sqrt},
    nn::{Conv1d, LayerNorm, Linear},
};

use super::{
    attention::{Attention, distances},
    config::Encoder,
};

/// Of all norms.
const EPS: f32 = 1e-5;

/// Lengths here stay far below 2³¹.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
pub(super) fn dim(n: usize) -> i32 {
    debug_assert!(i32::try_from(n).is_ok(), "{n} exceeds MLX's dimensions");
    n as i32
}

/// `linear2(silu(linear1(x)))`.
struct FeedForward {
    ops: Ops,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    fn load(ctx: &LoadContext<'_>, config: &Encoder) -> Result<Self> {
        let (model, inner) = (config.d_model, config.d_model * config.ff_expansion_factor);
        let bias = if config.use_bias { Bias::Added } else { Bias::None };
        let (up, down) = (ctx.linear("linear1", model, inner, bias)?, ctx.linear("linear2", inner, model, bias)?);
        Ok(Self { ops: ctx.ops(), up, down })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.ops.activate(&self.up.forward(x)?, Activation::Silu)?)
    }
}

/// A convolution over the places around each.
struct Convolution {
    ops: Ops,
    gates: Conv1d,
    around: Conv1d,
    /// The batch norm as it was when training ended: a factor and a shift for each channel.
    scale: Tensor,
    shift: Tensor,
    output: Conv1d,
}

impl Convolution {
    fn load(ctx: &LoadContext<'_>, config: &Encoder) -> Result<Self> {
        let (model, kernel) = (config.d_model, config.conv_kernel_size);
        let bias = if config.use_bias { Bias::Added } else { Bias::None };
        let norm = ctx.at("batch_norm");
        let [weight, shift, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|name| norm.tensor(name, &[model]));
        let (variance, mean, shift) = (variance?, mean?, shift?);
        // Counts training steps.
        norm.ignore(|name| name == "num_batches_tracked");
        let eps = Tensor::from_f32(EPS).as_dtype(variance.dtype())?;
        let scale = weight?.divide(sqrt(variance.add(&eps)?)?)?;
        let shift = shift.subtract(mean.multiply(&scale)?)?;
        scale.eval()?;
        shift.eval()?;
        let point = ConvGeometry::default();
        Ok(Self {
            ops: ctx.ops(),
            gates: ctx.conv1d("pointwise_conv1", [2 * model, model, 1], point, bias)?,
            around: ctx.conv1d(
                "depthwise_conv",
                [model, 1, kernel],
                ConvGeometry { groups: model, ..ConvGeometry::same(kernel, 1) },
                bias,
            )?,
            scale,
            shift,
            output: ctx.conv1d("pointwise_conv2", [model, model, 1], point, bias)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let halves = self.gates.forward(x)?.split_equal(2, 1)?;
        let x = self.around.forward(&halves[0].multiply(sigmoid(&halves[1])?)?)?;
        let x = self.ops.activate(&x.multiply(&self.scale)?.add(&self.shift)?, Activation::Silu)?;
        self.output.forward(&x)
    }
}

struct Block {
    ops: Ops,
    before: (LayerNorm, FeedForward),
    attention: (LayerNorm, Attention),
    convolution: (LayerNorm, Convolution),
    after: (LayerNorm, FeedForward),
    norm: LayerNorm,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Encoder) -> Result<Self> {
        let norm = |name: &str| ctx.layer_norm(name, config.d_model, EPS);
        Ok(Self {
            ops: ctx.ops(),
            before: (norm("norm_feed_forward1")?, FeedForward::load(&ctx.at("feed_forward1"), config)?),
            attention: (norm("norm_self_att")?, Attention::load(&ctx.at("self_attn"), config)?),
            convolution: (norm("norm_conv")?, Convolution::load(&ctx.at("conv"), config)?),
            after: (norm("norm_feed_forward2")?, FeedForward::load(&ctx.at("feed_forward2"), config)?),
            norm: norm("norm_out")?,
        })
    }

    fn forward(&self, x: &Tensor, distances: &Tensor) -> Result<Tensor> {
        let ops = &self.ops;
        let half = |x: &Tensor, (norm, part): &(LayerNorm, FeedForward)| {
            ops.add(x, &ops.scale(&part.forward(&norm.forward(x)?)?, 0.5)?)
        };
        let x = half(x, &self.before)?;
        let (norm, attention) = &self.attention;
        let x = ops.add(&x, &attention.forward(&norm.forward(&x)?, distances)?)?;
        let (norm, convolution) = &self.convolution;
        let x = ops.add(&x, &convolution.forward(&norm.forward(&x)?)?)?;
        self.norm.forward(&half(&x, &self.after)?)
    }
}

/// A 2-D convolution of 3 × 3 with stride 2, or of 1 × 1.
struct Conv2d {
    /// [outputs, kernel, kernel, inputs / groups].
    weight: Tensor,
    bias: Tensor,
    stride: i32,
    groups: i32,
}

impl Conv2d {
    fn load(
        ctx: &LoadContext<'_>,
        name: &str,
        [outputs, inputs]: [usize; 2],
        kernel: usize,
        groups: usize,
    ) -> Result<Self> {
        let scope = ctx.at(name);
        let weight = scope.tensor("weight", &[outputs, kernel, kernel, inputs / groups])?;
        Ok(Self {
            weight,
            bias: scope.tensor("bias", &[outputs])?,
            stride: if kernel == 1 { 1 } else { 2 },
            groups: dim(groups),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let padding = i32::from(self.stride == 2);
        let y = conv2d(
            x,
            &self.weight,
            Some((self.stride, self.stride)),
            Some((padding, padding)),
            None,
            Some(self.groups),
        )?;
        Ok(y.add(&self.bias)?)
    }
}

/// Takes every second frame and band, as often as it halves, and makes places of what is left.
struct Subsampling {
    first: Conv2d,
    /// Each channel by itself, then all together.
    rest: Vec<(Conv2d, Conv2d)>,
    output: Linear,
}

impl Subsampling {
    fn load(ctx: &LoadContext<'_>, config: &Encoder) -> Result<Self> {
        let (channels, halvings) = (config.subsampling_conv_channels, config.subsampling_factor.ilog2() as usize);
        let bands = (0..halvings).fold(config.feat_in, |bands, _| bands.div_ceil(2));
        // Activations have numbers of their own in the list of layers.
        let pair = |i: usize| {
            let each = Conv2d::load(ctx, &format!("conv.{}", 3 * i - 1), [channels; 2], 3, channels)?;
            Ok((each, Conv2d::load(ctx, &format!("conv.{}", 3 * i), [channels; 2], 1, 1)?))
        };
        Ok(Self {
            first: Conv2d::load(ctx, "conv.0", [channels, 1], 3, 1)?,
            rest: (1..halvings).map(pair).collect::<Result<_>>()?,
            output: ctx.linear("out", channels * bands, config.d_model, Bias::Added)?,
        })
    }

    /// [frames, bands] → [places, model].
    fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let zero = Tensor::from_f32(0.0).as_dtype(mel.dtype())?;
        let mut x = maximum(self.first.forward(&mel.reshape(&[1, mel.dim(0), mel.dim(1), 1])?)?, &zero)?;
        for (each, together) in &self.rest {
            x = maximum(together.forward(&each.forward(&x)?)?, &zero)?;
        }
        // Channel by channel, as PyTorch lays them out.
        let (places, bands, channels) = (x.dim(1), x.dim(2), x.dim(3));
        let x =
            x.reshape(&[places, bands, channels])?.transpose_axes(&[0, 2, 1])?.reshape(&[places, channels * bands])?;
        self.output.forward(&x)
    }
}

/// See the [module](self).
pub(super) struct Conformer {
    subsampling: Subsampling,
    blocks: Vec<Block>,
    ops: Ops,
    model: usize,
    /// Factor on what the blocks are given.
    factor: f32,
}

impl Conformer {
    pub fn load(ctx: &LoadContext<'_>, config: &Encoder) -> Result<Self> {
        let block = |layer| Block::load(&ctx.at(&format!("layers.{layer}")), config);
        Ok(Self {
            subsampling: Subsampling::load(&ctx.at("pre_encode"), config)?,
            blocks: (0..config.n_layers).map(block).collect::<Result<_>>()?,
            ops: ctx.ops(),
            model: config.d_model,
            factor: if config.xscaling { (config.d_model as f32).sqrt() } else { 1.0 },
        })
    }

    /// Log-mel [frames, bands] → [places, model].
    pub fn forward(&self, mel: &Tensor, pause: &mut dyn FnMut()) -> Result<Tensor> {
        let mut x = self.ops.scale(&self.subsampling.forward(mel)?, self.factor)?;
        x.eval()?;
        pause();
        let places = usize::try_from(x.dim(0)).unwrap_or(0);
        let distances = distances(places, self.model);
        let distances = Tensor::from_slice(&distances, &[dim(2 * places - 1), dim(self.model)]).as_dtype(x.dtype())?;
        for block in &self.blocks {
            x = block.forward(&x, &distances)?;
            x.eval()?;
            pause();
        }
        Ok(x)
    }
}
