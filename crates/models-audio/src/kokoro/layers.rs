//! Layers that several parts of Kokoro are made of. All sound lies as [frames, channels].

use vllm_platform_mlx::{
    Bias, ChannelMap, ConvGeometry, Directions, Inlet, LoadContext, Nonlinearity, Outlet, Result, Tensor,
    TransposedGeometry,
    mlx_rs::ops::stack,
    nn::{AdaptiveNorm, Conv1d, ConvTranspose1d, Lstm},
};

/// Of the variance in norms over channels and over time; torch's, which no file says.
pub(super) const EPS: f32 = 1e-5;

/// What is left of negative numbers between most layers.
pub(super) const SLOPE: Nonlinearity<'static> = Nonlinearity::LeakyRelu(0.2);

/// As MLX counts.
pub(super) fn dim(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// An LSTM that reads its rows both ways: so many numbers of both come out, half of them of each.
pub(super) fn both_ways(ctx: &LoadContext<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Lstm> {
    ctx.lstm(name, inputs, outputs / 2, Directions::Both)
}

/// A convolution of one frame at a time.
pub(super) fn pointwise(
    ctx: &LoadContext<'_>,
    name: &str,
    inputs: usize,
    outputs: usize,
    bias: Bias,
) -> Result<Conv1d> {
    ctx.conv1d(name, [outputs, inputs, 1], ConvGeometry::default(), bias)
}

/// A convolution of as many frames as come out, `[inputs, outputs]`.
pub(super) fn same(
    ctx: &LoadContext<'_>,
    name: &str,
    channels: [usize; 2],
    kernel: usize,
    dilation: usize,
) -> Result<Conv1d> {
    let [inputs, outputs] = channels;
    ctx.conv1d(name, [outputs, inputs, kernel], ConvGeometry::same(kernel, dilation), Bias::Added)
}

/// What goes through a norm's map and a nonlinearity.
pub(super) fn through<'a>(map: &'a ChannelMap, function: Nonlinearity<'a>) -> Inlet<'a> {
    Inlet { map: Some(map), function }
}

/// What goes through a nonlinearity.
pub(super) fn bent(function: Nonlinearity<'_>) -> Inlet<'_> {
    Inlet { map: None, function }
}

/// A residual block of the decoder and of the predictor.
pub(super) struct ResBlock {
    norm1: AdaptiveNorm,
    /// Twice as many frames, each channel by itself.
    double: Option<ConvTranspose1d>,
    conv1: Conv1d,
    norm2: AdaptiveNorm,
    conv2: Conv1d,
    shortcut: Option<Conv1d>,
}

impl ResBlock {
    /// `doubles`: whether twice as many frames come out; `style`: numbers of a style.
    pub fn load(ctx: &LoadContext<'_>, [inputs, outputs]: [usize; 2], doubles: bool, style: usize) -> Result<Self> {
        let pool = TransposedGeometry { stride: 2, padding: 1, output_padding: 1, depthwise: true };
        Ok(Self {
            norm1: ctx.adaptive_norm("norm1", style, inputs, EPS)?,
            double: doubles.then(|| ctx.conv_transpose1d("pool", [inputs, 1, 3], pool, Bias::Added)).transpose()?,
            conv1: same(ctx, "conv1", [inputs, outputs], 3, 1)?,
            norm2: ctx.adaptive_norm("norm2", style, outputs, EPS)?,
            conv2: same(ctx, "conv2", [outputs; 2], 3, 1)?,
            shortcut: (inputs != outputs)
                .then(|| pointwise(ctx, "conv1x1", inputs, outputs, Bias::None))
                .transpose()?,
        })
    }

    /// x [frames, inputs], style [1, style] → [frames, outputs], or twice as many frames.
    pub fn forward(&self, x: &Tensor, style: &Tensor) -> Result<Tensor> {
        // A convolution of one frame at a time and the doubling of frames can change places: this way round there is less to do.
        let mut shortcut = match &self.shortcut {
            Some(conv) => conv.forward(x)?,
            None => x.clone(),
        };
        let map = self.norm1.map(x, style)?;
        let inlet = through(&map, SLOPE);
        let residual = match &self.double {
            Some(double) => {
                let shape = [2 * shortcut.dim(0), shortcut.dim(1)];
                shortcut = stack(&[&shortcut, &shortcut], 1)?.reshape(&shape)?;
                self.conv1.forward(&double.forward_with(x, inlet)?)?
            }
            None => self.conv1.forward_with(x, inlet, Outlet::default())?,
        };
        let map = self.norm2.map(&residual, style)?;
        let outlet = Outlet { residual: Some(&shortcut), factor: std::f32::consts::FRAC_1_SQRT_2 };
        self.conv2.forward_with(&residual, through(&map, SLOPE), outlet)
    }
}
