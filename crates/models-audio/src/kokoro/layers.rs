//! Layers that several parts of Kokoro are made of. All sound lies as [frames, channels].

use vllm_platform_mlx::{
    Bias, FilterLayout, LoadContext, Ops, Result, Tensor,
    mlx_rs::ops::{concatenate, conv_transpose1d, conv1d, indexing::TryIndexOp, maximum, sigmoid, stack, tanh},
    nn::Linear,
};

/// Of the variance in norms over channels and over time; torch's, which no file says.
pub(super) const EPS: f32 = 1e-5;

/// As MLX counts.
pub(super) fn dim(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// How the file lays out filters: those that MLX wrote name its LSTMs' weights as MLX does.
pub(super) fn layout(ctx: &LoadContext<'_>) -> FilterLayout {
    if ctx.has("lstm.Wx_forward") { FilterLayout::ChannelsLast } else { FilterLayout::KernelLast }
}

/// What a loader needs to know beside names.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub style: usize,
    pub layout: FilterLayout,
}

/// A convolution over frames.
pub(super) struct Conv {
    filters: Tensor,
    bias: Option<Tensor>,
    stride: i32,
    padding: i32,
    dilation: i32,
}

/// Its numbers, beside the channels.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
}

impl Window {
    /// As many frames come out as go in.
    pub fn same(kernel: usize, dilation: usize) -> Self {
        Self { kernel, stride: 1, padding: (kernel - 1) * dilation / 2, dilation }
    }
}

impl Conv {
    pub fn load(
        ctx: &LoadContext<'_>,
        name: &str,
        [inputs, outputs]: [usize; 2],
        window: Window,
        bias: Bias,
        layout: FilterLayout,
    ) -> Result<Self> {
        let filters = ctx.filters(name, [outputs, inputs, window.kernel], layout)?;
        let bias = match bias {
            Bias::Added => Some(ctx.at(name).tensor("bias", &[outputs])?),
            Bias::None => None,
        };
        let [stride, padding, dilation] = [window.stride, window.padding, window.dilation].map(dim);
        Ok(Self { filters, bias, stride, padding, dilation })
    }

    /// [frames, inputs] → [frames, outputs], fewer frames where the stride is more than 1.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = conv1d(x.expand_dims(0)?, &self.filters, self.stride, self.padding, self.dilation, 1)?
            .squeeze_axes(&[0])?;
        Ok(match &self.bias {
            Some(bias) => y.add(bias)?,
            None => y,
        })
    }
}

/// A transposed convolution whose kernel is wider than its stride by twice its padding: `stride` times as many frames.
pub(super) struct ConvTranspose {
    filters: Tensor,
    bias: Tensor,
    stride: i32,
    padding: i32,
}

impl ConvTranspose {
    pub fn load(
        ctx: &LoadContext<'_>,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
        layout: FilterLayout,
    ) -> Result<Self> {
        // Stored, and normalised, by input.
        let filters = ctx.filters(name, [inputs, outputs, kernel], layout)?;
        let filters = filters.transpose_axes(&[2, 1, 0])?.contiguous()?;
        filters.eval()?;
        let bias = ctx.at(name).tensor("bias", &[outputs])?;
        Ok(Self { filters, bias, stride: dim(stride), padding: dim((kernel - stride) / 2) })
    }

    /// [frames, inputs] → [frames · stride, outputs].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = conv_transpose1d(x.expand_dims(0)?, &self.filters, self.stride, self.padding, 1, 0, 1)?;
        Ok(y.squeeze_axes(&[0])?.add(&self.bias)?)
    }
}

/// An LSTM that reads its rows both ways (Hochreiter & Schmidhuber, 1997; Schuster & Paliwal, 1997).
pub(super) struct BiLstm {
    ops: Ops,
    directions: [Direction; 2],
}

struct Direction {
    /// [inputs, 4 · hidden], in the order of input, forget, cell and output gate.
    input: Tensor,
    /// [hidden, 4 · hidden].
    hidden: Tensor,
    /// `[4 · hidden]`, of both.
    bias: Tensor,
}

impl BiLstm {
    /// `name.weight_ih_l0` and so on as torch names them, or `name.Wx_forward` and so on as mlx-audio does; `outputs` of both
    /// directions together.
    pub fn load(ctx: &LoadContext<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let (scope, hidden) = (ctx.at(name), outputs / 2);
        let mlx = scope.has("Wx_forward");
        let direction = |torch: &str, ours: &str| {
            let tensor = |theirs: &str, mlx_name: &str, shape: &[usize]| {
                let name = if mlx { format!("{mlx_name}_{ours}") } else { format!("{theirs}_l0{torch}") };
                scope.tensor(&name, shape)
            };
            let bias_ih = tensor("bias_ih", "bias_ih", &[4 * hidden])?;
            let bias = bias_ih.add(tensor("bias_hh", "bias_hh", &[4 * hidden])?)?;
            bias.eval()?;
            Ok::<_, vllm_platform_mlx::Error>(Direction {
                input: tensor("weight_ih", "Wx", &[4 * hidden, inputs])?.transpose()?,
                hidden: tensor("weight_hh", "Wh", &[4 * hidden, hidden])?.transpose()?,
                bias,
            })
        };
        Ok(Self { ops: ctx.ops(), directions: [direction("", "forward")?, direction("_reverse", "backward")?] })
    }

    /// [rows, inputs] → [rows, outputs].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let _ = &self.ops;
        let rows = x.dim(0);
        let ways: Vec<Tensor> = self
            .directions
            .iter()
            .enumerate()
            .map(|(way, direction)| {
                let order: Vec<i32> = if way == 0 { (0..rows).collect() } else { (0..rows).rev().collect() };
                let mut out = direction.read(x, &order)?;
                if way == 1 {
                    out.reverse();
                }
                Ok(concatenate(&out, 0)?)
            })
            .collect::<Result<_>>()?;
        Ok(concatenate(&ways, 1)?)
    }
}

impl Direction {
    fn read(&self, x: &Tensor, order: &[i32]) -> Result<Vec<Tensor>> {
        let gates = x.matmul(&self.input)?.add(&self.bias)?;
        let (mut state, mut out) = (None::<(Tensor, Tensor)>, Vec::new());
        for &row in order {
            let mut gates = gates.try_index(row..row + 1)?;
            if let Some((hidden, _)) = &state {
                gates = gates.add(hidden.matmul(&self.hidden)?)?;
            }
            let parts = gates.split_equal(4, 1)?;
            let new = sigmoid(&parts[0])?.multiply(tanh(&parts[2])?)?;
            let cell = match &state {
                Some((_, cell)) => sigmoid(&parts[1])?.multiply(cell)?.add(new)?,
                None => new,
            };
            let hidden = sigmoid(&parts[3])?.multiply(tanh(&cell)?)?;
            out.push(hidden.clone());
            state = Some((hidden, cell));
        }
        Ok(out)
    }
}

/// What follows a norm.
pub(super) enum Bend {
    /// `max(x, 0.2 x)`.
    Leaky,
    /// `x + sin²(a x) / a`, with `a` [1, channels] (Liu et al., arXiv:2006.08195).
    Snake(Tensor),
}

/// Instance norm over the frames, whose factor and shift a style says (Huang & Belongie, arXiv:1703.06868), and what follows it.
pub(super) struct AdaIn {
    style: Linear,
    bend: Bend,
}

impl AdaIn {
    pub fn load(ctx: &LoadContext<'_>, name: &str, channels: usize, sizes: Sizes, bend: Bend) -> Result<Self> {
        Ok(Self { style: ctx.at(name).linear("fc", sizes.style, 2 * channels, Bias::Added)?, bend })
    }

    /// x [frames, channels], style [1, style] → [frames, channels].
    pub fn forward(&self, x: &Tensor, style: &Tensor) -> Result<Tensor> {
        let affine = self.style.forward(style)?.split_equal(2, 1)?;
        let mean = x.mean_axes(&[0], true)?;
        let x = x.subtract(mean)?;
        let variance = x.square()?.mean_axes(&[0], true)?;
        let scale = affine[0].add(scalar(1.0))?.multiply(variance.add(scalar(EPS))?.rsqrt()?)?;
        let x = x.multiply(scale)?.add(&affine[1])?;
        match &self.bend {
            Bend::Leaky => leaky(&x, 0.2),
            Bend::Snake(alpha) => Ok(x.add(x.multiply(alpha)?.sin()?.square()?.divide(alpha)?)?),
        }
    }
}

fn scalar(x: f32) -> Tensor {
    Tensor::from_f32(x)
}

/// `max(x, slope · x)`.
pub(super) fn leaky(x: &Tensor, slope: f32) -> Result<Tensor> {
    Ok(maximum(x, x.multiply(scalar(slope))?)?)
}

/// A residual block of the decoder and of the predictor.
pub(super) struct ResBlock {
    ops: Ops,
    norm1: AdaIn,
    /// Twice as many frames, each channel by itself.
    pool: Option<Doubling>,
    conv1: Conv,
    norm2: AdaIn,
    conv2: Conv,
    shortcut: Option<Conv>,
}

impl ResBlock {
    /// `doubles`: whether twice as many frames come out.
    pub fn load(ctx: &LoadContext<'_>, [inputs, outputs]: [usize; 2], doubles: bool, sizes: Sizes) -> Result<Self> {
        let three = Window::same(3, 1);
        Ok(Self {
            ops: ctx.ops(),
            norm1: AdaIn::load(ctx, "norm1", inputs, sizes, Bend::Leaky)?,
            pool: doubles.then(|| Doubling::load(ctx, "pool", inputs, sizes.layout)).transpose()?,
            conv1: Conv::load(ctx, "conv1", [inputs, outputs], three, Bias::Added, sizes.layout)?,
            norm2: AdaIn::load(ctx, "norm2", outputs, sizes, Bend::Leaky)?,
            conv2: Conv::load(ctx, "conv2", [outputs; 2], three, Bias::Added, sizes.layout)?,
            shortcut: (inputs != outputs)
                .then(|| Conv::load(ctx, "conv1x1", [inputs, outputs], Window::same(1, 1), Bias::None, sizes.layout))
                .transpose()?,
        })
    }

    /// x [frames, inputs], style [1, style] → [frames, outputs], or twice as many frames.
    pub fn forward(&self, x: &Tensor, style: &Tensor) -> Result<Tensor> {
        let mut residual = self.norm1.forward(x, style)?;
        // A convolution of one frame at a time and the doubling of frames can change places: this way round there is less to do.
        let mut shortcut = match &self.shortcut {
            Some(conv) => conv.forward(x)?,
            None => x.clone(),
        };
        if let Some(pool) = &self.pool {
            residual = pool.forward(&residual)?;
            let shape = [2 * shortcut.dim(0), shortcut.dim(1)];
            shortcut = stack(&[&shortcut, &shortcut], 1)?.reshape(&shape)?;
        }
        let residual = self.norm2.forward(&self.conv1.forward(&residual)?, style)?;
        let residual = self.conv2.forward(&residual)?;
        self.ops.scale(&self.ops.add(&residual, &shortcut)?, std::f32::consts::FRAC_1_SQRT_2)
    }
}

/// A transposed convolution of each channel by itself: kernel 3, stride 2, one frame cut off at the beginning.
struct Doubling {
    /// Each [1, channels]: what a frame gives to the one before its first, to its first and to its second.
    taps: [Tensor; 3],
    bias: Tensor,
}

impl Doubling {
    fn load(ctx: &LoadContext<'_>, name: &str, channels: usize, layout: FilterLayout) -> Result<Self> {
        let filters = ctx.filters(name, [channels, 1, 3], layout)?.reshape(&[dim(channels), 3])?.transpose()?;
        let tap = |i: i32| -> Result<Tensor> {
            let tap = filters.try_index(i..i + 1)?.contiguous()?;
            tap.eval()?;
            Ok(tap)
        };
        let bias = ctx.at(name).tensor("bias", &[channels])?;
        Ok(Self { taps: [tap(0)?, tap(1)?, tap(2)?], bias })
    }

    /// [frames, channels] → [2 · frames, channels].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [before, first, second] = &self.taps;
        let (frames, channels) = (x.dim(0), x.dim(1));
        let nothing = Tensor::zeros::<f32>(&[1, channels])?.as_dtype(x.dtype())?;
        let next = concatenate(&[x.try_index(1..)?, nothing], 0)?;
        let even = x.multiply(first)?.add(&self.bias)?;
        let odd = x.multiply(second)?.add(next.multiply(before)?)?.add(&self.bias)?;
        Ok(stack(&[even, odd], 1)?.reshape(&[2 * frames, channels])?)
    }
}
