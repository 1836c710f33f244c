//! Layers of models that make sound: convolutions in one dimension, long short-term memory.

use vllm_checkpoint::TensorData;
use vllm_kernels_cpu::Floats;

use super::{Bias, LoadContext, check_shape};
use crate::{
    ConvGeometry, Error, LstmWeights, Result, TransposedGeometry,
    ffi::NumberView,
    nn::{AdaptiveNorm, Conv1d, ConvTranspose1d, Lstm},
};

/// Directions of an LSTM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directions {
    /// From the first frame to the last.
    Forward,
    /// And from the last to the first.
    Both,
}

impl LoadContext<'_> {
    /// A convolution in one dimension, `shape` [outputs, inputs / groups, kernel]: its weights are `name.weight` of that shape,
    /// PyTorch's, or [outputs, kernel, inputs / groups], MLX's (if both are the same, PyTorch's); or, with weight
    /// normalization (arXiv:1602.07868), `name.weight_v` as either of them and `name.weight_g` [outputs, 1, 1]. Then `name.bias`
    /// `[outputs]`.
    ///
    /// On the CPU the weights become what the pool's activations ask for: integers, unless those are f32.
    ///
    /// # Errors
    /// If a tensor is missing, quantized, or has another shape.
    pub fn conv1d(&self, name: &str, shape: [usize; 3], geometry: ConvGeometry, bias: Bias) -> Result<Conv1d> {
        let scope = self.at(name);
        let [outputs, inputs, kernel] = shape;
        let weights = scope.turned_filters(shape, |o, i, k| [o, k, i])?;
        let bias = scope.bias_numbers(outputs, bias)?;
        let shape = [outputs, kernel, inputs];
        let arena = &self.shared.arena;
        let weights = self.ops().conv_weights(arena, &weights, shape, geometry, bias.as_deref())?;
        Ok(Conv1d::new(self.ops(), weights))
    }

    /// A transposed convolution in one dimension, `shape` [inputs, outputs, kernel], or [channels, 1, kernel] where each channel has
    /// a filter of its own. Names and shapes of tensors are as with [`LoadContext::conv1d`], MLX's being [outputs, kernel, inputs];
    /// only a normalized weight has its inputs first there too: [inputs, kernel, outputs].
    ///
    /// # Errors
    /// If a tensor is missing, quantized, or has another shape.
    pub fn conv_transpose1d(
        &self,
        name: &str,
        shape: [usize; 3],
        geometry: TransposedGeometry,
        bias: Bias,
    ) -> Result<ConvTranspose1d> {
        let scope = self.at(name);
        let [inputs, outputs, kernel] = shape;
        let weights = if geometry.depthwise {
            check_shape(&scope.path("weight"), &[outputs], &[1])?;
            scope.turned_filters(shape, |c, one, k| [c, k, one])?
        } else {
            scope.turned_filters(shape, |i, o, k| [o, k, i])?
        };
        let bias = scope.bias_numbers(if geometry.depthwise { inputs } else { outputs }, bias)?;
        // Our kernels have the inputs first.
        let weights =
            if geometry.depthwise { weights } else { permuted(&weights, [outputs, kernel, inputs], [2, 1, 0]) };
        let shape = [inputs, kernel, outputs];
        let arena = &self.shared.arena;
        let weights = self.ops().transposed_conv_weights(arena, &weights, shape, geometry, bias.as_deref())?;
        Ok(ConvTranspose1d::new(self.ops(), weights, geometry))
    }

    /// An adaptive norm: the linear layer `name.fc` makes of a style of `style_len` each channel's scale, less one, and then each
    /// channel's shift.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn adaptive_norm(&self, name: &str, style_len: usize, channels: usize, eps: f32) -> Result<AdaptiveNorm> {
        let style = self.at(name).linear("fc", style_len, 2 * channels, Bias::Added)?;
        Ok(AdaptiveNorm::new(self.ops(), style, eps))
    }

    /// Long short-term memory of one layer, with PyTorch's names below `name`: `weight_ih_l0` [4 · hidden, inputs], `weight_hh_l0`
    /// [4 · hidden, hidden], `bias_ih_l0` and `bias_hh_l0` `[4 · hidden]`, and those of the way back with `_reverse` behind; or
    /// mlx-audio's, `Wx_forward`, `Wh_forward`, `bias_ih_forward` and `bias_hh_forward`, and `backward`.
    ///
    /// # Errors
    /// If a tensor is missing, quantized, or has another shape.
    pub fn lstm(&self, name: &str, inputs: usize, hidden: usize, directions: Directions) -> Result<Lstm> {
        let scope = self.at(name);
        let suffixes: &[[&str; 2]] = match directions {
            Directions::Forward => &[["l0", "forward"]],
            Directions::Both => &[["l0", "forward"], ["l0_reverse", "backward"]],
        };
        let mlx = scope.has("Wx_forward");
        let [input_name, hidden_name] = if mlx { ["Wx", "Wh"] } else { ["weight_ih", "weight_hh"] };
        let weights = suffixes.iter().map(|suffix| {
            let suffix = suffix[usize::from(mlx)];
            let tensor = |name: &str, shape: &[usize]| scope.tensor(&format!("{name}_{suffix}"), shape);
            let bias = tensor("bias_ih", &[4 * hidden])?.add(tensor("bias_hh", &[4 * hidden])?)?;
            bias.eval()?;
            Ok(LstmWeights {
                input: tensor(input_name, &[4 * hidden, inputs])?,
                hidden: tensor(hidden_name, &[4 * hidden, hidden])?,
                bias,
            })
        });
        Ok(Lstm::new(self.ops(), weights.collect::<Result<_>>()?))
    }

    fn bias_numbers(&self, outputs: usize, bias: Bias) -> Result<Option<Vec<f32>>> {
        match bias {
            Bias::Added => Ok(Some(self.numbers("bias", &[&[outputs]])?.0)),
            Bias::None => Ok(None),
        }
    }

    /// A convolution's weights, in `file`'s order, PyTorch's, or in MLX's, which `mlx` makes of that; in MLX's order.
    fn turned_filters(&self, file: [usize; 3], mlx: fn(usize, usize, usize) -> [usize; 3]) -> Result<Vec<f32>> {
        let [a, b, c] = file;
        let turned = mlx(a, b, c);
        let (numbers, in_order) = if self.has("weight") {
            self.numbers("weight", &[&file, &turned])?
        } else {
            let (gains, _) = self.numbers("weight_g", &[&[a, 1, 1]])?;
            let (mut numbers, layout) = self.numbers("weight_v", &[&file, &[a, c, b]])?;
            weight_norm(&mut numbers, &gains);
            (if layout == 0 { numbers } else { permuted(&numbers, [a, c, b], [0, 2, 1]) }, 0)
        };
        // The axes, turned like their lengths.
        Ok(if in_order == 1 { numbers } else { permuted(&numbers, file, mlx(0, 1, 2)) })
    }

    /// A tensor's numbers, which has one of the shapes, and which of them it is.
    fn numbers(&self, name: &str, shapes: &[&[usize]]) -> Result<(Vec<f32>, usize)> {
        let path = self.path(name);
        let problem = |problem: &str| Error::Tensor { name: path.clone(), problem: problem.into() };
        let TensorData::Dense(dense) = self.shared.read(&path)? else {
            return Err(problem("is quantized; convolutions are not"));
        };
        let Some(which) = shapes.iter().position(|shape| dense.shape == *shape) else {
            return Err(Error::Shape { name: path, found: dense.shape.clone(), wanted: shapes[0].into() });
        };
        let view = NumberView::new(&dense).ok_or_else(|| problem("is neither f32 nor f16 nor bf16"))?;
        let numbers: Vec<f32> = match view.floats() {
            Floats::F32(v) => v.into(),
            Floats::F16(v) => v.iter().map(|v| v.to_f32()).collect(),
            Floats::Bf16(v) => v.iter().map(|v| v.to_f32()).collect(),
        };
        let bytes = numbers.len() * 4;
        self.count_in_place(bytes);
        self.shared.take(path, numbers.len(), bytes);
        Ok((numbers, which))
    }
}

/// Gives each of as many equal parts as there are gains that length.
fn weight_norm(numbers: &mut [f32], gains: &[f32]) {
    let part = numbers.len() / gains.len().max(1);
    for (direction, &gain) in numbers.chunks_exact_mut(part.max(1)).zip(gains) {
        let length = direction.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        // What has no length has no direction.
        let factor = if length > 0.0 { f64::from(gain) / length } else { 0.0 };
        direction.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
    }
}

/// `numbers` of that shape, with axis `axes[i]` as the `i`-th.
fn permuted(numbers: &[f32], shape: [usize; 3], axes: [usize; 3]) -> Vec<f32> {
    let strides = [shape[1] * shape[2], shape[2], 1];
    let mut out = Vec::with_capacity(numbers.len());
    for i in 0..shape[axes[0]] {
        for j in 0..shape[axes[1]] {
            let start = i * strides[axes[0]] + j * strides[axes[1]];
            out.extend((0..shape[axes[2]]).map(|k| numbers[start + k * strides[axes[2]]]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_change_places() {
        let numbers: Vec<f32> = (0..24).map(|n| n as f32).collect();
        for axes in [[0, 1, 2], [0, 2, 1], [1, 2, 0], [2, 1, 0]] {
            let shape = [2, 3, 4];
            let turned = permuted(&numbers, shape, axes);
            for (at, number) in turned.iter().enumerate() {
                let lengths = axes.map(|axis| shape[axis]);
                let place = [at / lengths[2] / lengths[1], at / lengths[2] % lengths[1], at % lengths[2]];
                let mut file = [0; 3];
                axes.iter().zip(place).for_each(|(&axis, place)| file[axis] = place);
                assert_eq!(*number, ((file[0] * 3 + file[1]) * 4 + file[2]) as f32, "{axes:?}, number {at}");
            }
        }
    }

    #[test]
    fn weights_get_the_length_of_their_gain() {
        let mut numbers = [3.0, 4.0, 0.0, 0.0, -1e-20, 0.0];
        weight_norm(&mut numbers, &[10.0, 5.0, 2.0]);
        assert_eq!(numbers, [6.0, 8.0, 0.0, 0.0, -2.0, 0.0]);
    }
}
