//! Attention that knows how far apart its places are (Transformer-XL; Dai et al., arXiv:1901.02860).

use vllm_platform_mlx::{
    Bias, LoadContext, Ops, Result, Tensor,
    mlx_rs::ops::{indexing::TryIndexOp, pad},
    nn::Linear,
};

use super::{config::Encoder, conformer::dim};

/// See the [module](self).
pub(super) struct Attention {
    ops: Ops,
    query: Linear,
    key: Linear,
    value: Linear,
    distance: Linear,
    output: Linear,
    /// [heads, head_dim]: added to the queries that meet keys, and to those that meet distances.
    bias_u: Tensor,
    bias_v: Tensor,
    heads: usize,
    width: usize,
}

impl Attention {
    pub fn load(ctx: &LoadContext<'_>, config: &Encoder) -> Result<Self> {
        let (model, heads) = (config.d_model, config.n_heads);
        let width = model / heads;
        let bias = if config.use_bias { Bias::Added } else { Bias::None };
        let linear = |name: &str, bias| ctx.linear(name, model, model, bias);
        Ok(Self {
            ops: ctx.ops(),
            query: linear("linear_q", bias)?,
            key: linear("linear_k", bias)?,
            value: linear("linear_v", bias)?,
            distance: linear("linear_pos", Bias::None)?,
            output: linear("linear_out", bias)?,
            bias_u: ctx.tensor("pos_bias_u", &[heads, width])?,
            bias_v: ctx.tensor("pos_bias_v", &[heads, width])?,
            heads,
            width,
        })
    }

    /// x [places, model], `distances` [2 · places − 1, model] ([`distances`]) → [places, model].
    pub fn forward(&self, x: &Tensor, distances: &Tensor) -> Result<Tensor> {
        let places = x.dim(0);
        let split = |x: &Tensor| x.reshape(&[x.dim(0), dim(self.heads), dim(self.width)]);
        let query = split(&self.query.forward(x)?)?;
        // [heads, places, width].
        let front = |x: &Tensor| x.transpose_axes(&[1, 0, 2]);
        let (key, value) = (front(&split(&self.key.forward(x)?)?)?, front(&split(&self.value.forward(x)?)?)?);
        let distance = front(&split(&self.distance.forward(distances)?)?)?;
        let (by_key, by_distance) = (front(&query.add(&self.bias_u)?)?, front(&query.add(&self.bias_v)?)?);
        let turned = |x: &Tensor| x.transpose_axes(&[0, 2, 1]);
        let scores = by_key.matmul(turned(&key)?)?;
        let by_distance = shifted(&by_distance.matmul(turned(&distance)?)?, places)?;
        let scale = (self.width as f32).powf(-0.5);
        let weights = self.ops.softmax(&self.ops.scale(&scores.add(by_distance)?, scale)?)?;
        let seen =
            weights.matmul(value)?.transpose_axes(&[1, 0, 2])?.reshape(&[places, dim(self.heads * self.width)])?;
        self.output.forward(&seen)
    }
}

/// From scores by distance, [heads, places, 2 · places − 1], the farthest ahead first, to scores by place, [heads, places, places].
fn shifted(scores: &Tensor, places: i32) -> Result<Tensor> {
    let (heads, distances) = (scores.dim(0), scores.dim(2));
    // With one more number in each row, each row of the same memory begins one distance later.
    let padded = pad(scores, &[(0, 0), (0, 0), (1, 0)], None, None)?;
    let slid = padded.reshape(&[heads, distances + 1, places])?.try_index((.., 1.., ..))?;
    Ok(slid.reshape(&[heads, places, distances])?.try_index((.., .., ..places))?)
}

/// What the distances from `places − 1` ahead to as many behind look like, [2 · places − 1, model], row by row: sines and
/// cosines in turn.
pub(super) fn distances(places: usize, model: usize) -> Vec<f32> {
    let mut numbers = Vec::with_capacity((2 * places).saturating_sub(1) * model);
    for i in 0..(2 * places).saturating_sub(1) {
        let distance = places as f64 - 1.0 - i as f64;
        for pair in 0..model / 2 {
            let turn = distance * 10_000_f64.powf(-2.0 * pair as f64 / model as f64);
            numbers.extend([turn.sin() as f32, turn.cos() as f32]);
        }
    }
    numbers
}
