//! Our CPU primitives.

mod convolve;
mod elementwise;
mod lstm;
mod moe;
mod norm;

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use mlx_rs::{Dtype, Stream};
use vllm_checkpoint::QuantMode as FileMode;
use vllm_kernels_cpu::{self as kernels, DenseMatrix, PackedMatrix, Pool, QuantMatrix, QuantMode};

use super::{Activation, Matrix, Projection, RopeFrequencies};
use crate::{
    Batch, Error, Result, Tensor,
    batch::dim,
    ffi::{Output, View, ViewMut, cpu_primitive},
};

pub(super) struct Cpu {
    pub pool: Arc<Pool>,
    pub stream: Stream,
    /// Arrays that stay as they are, by id; held, so that the ids stay theirs.
    pub constants: RefCell<HashMap<usize, Tensor>>,
}

/// What a kernel needs to know of a matrix beside its arrays, which are graph inputs; a packed one has none.
enum Form {
    Dense { rows: usize, columns: usize },
    Quantized { rows: usize, columns: usize, bits: u8, group_size: usize, mode: QuantMode },
    Packed(Arc<PackedMatrix>),
}

impl Form {
    fn of(matrix: &Matrix) -> Self {
        match matrix {
            Matrix::Dense(w) => Self::Dense { rows: matrix.rows(), columns: w.dim(1) as usize },
            Matrix::Quantized(q) => Self::Quantized {
                rows: q.rows,
                columns: q.columns,
                bits: q.bits,
                group_size: q.group_size,
                mode: mode(q.mode),
            },
            Matrix::Packed(w) => Self::Packed(Arc::clone(w)),
        }
    }

    /// [rows, columns]
    fn shape(&self) -> [usize; 2] {
        match *self {
            Self::Dense { rows, columns } | Self::Quantized { rows, columns, .. } => [rows, columns],
            Self::Packed(ref w) => [w.rows(), w.cols()],
        }
    }

    /// The matrix over the graph inputs from `inputs[*next]` on, which it consumes: those of [`Matrix::arrays`].
    fn bind<'a>(&'a self, inputs: &[View<'a>], next: &mut usize) -> Result<Bound<'a>, String> {
        let mut take = || {
            *next += 1;
            inputs[*next - 1]
        };
        match *self {
            Self::Packed(ref w) => Ok(Bound::Packed(w)),
            Self::Dense { rows, columns } => {
                DenseMatrix::new(take().floats(), [rows, columns]).map(Bound::Dense).map_err(|e| e.to_string())
            }
            Self::Quantized { rows, columns, bits, group_size, mode } => {
                let (packed, scales) = (take().u32(), take());
                let matrix = match mode {
                    QuantMode::Affine => {
                        let biases = take().floats();
                        QuantMatrix::affine(packed, scales.floats(), biases, [rows, columns], bits, group_size)
                    }
                    _ => QuantMatrix::float(mode, packed, scales.u8(), [rows, columns]),
                };
                matrix.map(Bound::Quantized).map_err(|e| e.to_string())
            }
        }
    }
}

enum Bound<'a> {
    Dense(DenseMatrix<'a>),
    Quantized(QuantMatrix<'a>),
    Packed(&'a PackedMatrix),
}

fn mode(mode: FileMode) -> QuantMode {
    match mode {
        FileMode::Affine => QuantMode::Affine,
        FileMode::Mxfp4 => QuantMode::Mxfp4,
        FileMode::Mxfp8 => QuantMode::Mxfp8,
        FileMode::Nvfp4 => QuantMode::Nvfp4,
    }
}

/// A [`Projection`] without its arrays.
struct ProjectionForm {
    weight: Form,
    biased: bool,
}

impl ProjectionForm {
    fn of(projection: Projection<'_>) -> Self {
        Self { weight: Form::of(projection.weight), biased: projection.bias.is_some() }
    }

    /// The projection over the graph inputs from `inputs[*next]` on, which it consumes.
    fn bind<'a>(&'a self, inputs: &[View<'a>], next: &mut usize) -> Result<Layer<'a>, String> {
        let weight = self.weight.bind(inputs, next)?;
        let bias = self.biased.then(|| {
            *next += 1;
            inputs[*next - 1].f32()
        });
        Ok(Layer { weight, bias })
    }
}

/// The projections over x, the first of `inputs`, and their arrays, the others.
fn bind_all<'a>(forms: &'a [ProjectionForm], inputs: &[View<'a>]) -> Result<Vec<Layer<'a>>, String> {
    let mut next = 1;
    forms.iter().map(|form| form.bind(inputs, &mut next)).collect()
}

/// A [`Projection`] as the kernels take it.
struct Layer<'a> {
    weight: Bound<'a>,
    bias: Option<&'a [f32]>,
}

impl<'a> Layer<'a> {
    fn packed(&self) -> Option<kernels::Linear<'a>> {
        match self.weight {
            Bound::Packed(w) => Some(kernels::Linear { w, bias: self.bias }),
            _ => None,
        }
    }

    /// `y = x·Wᵀ + b`
    fn apply(&self, pool: &Pool, x: &[f32], y: &mut [f32]) {
        if let Some(bias) = self.apply_unbiased(pool, x, y) {
            kernels::elementwise::add_row_assign(pool, y, bias);
        }
    }

    /// `y = x·Wᵀ`, and what is still to be added to it: the bias, unless the kernel has done so.
    fn apply_unbiased(&self, pool: &Pool, x: &[f32], y: &mut [f32]) -> Option<&'a [f32]> {
        match &self.weight {
            Bound::Dense(w) => kernels::matmul(pool, x, w, y),
            Bound::Quantized(w) => kernels::quantized_matmul(pool, x, w, y),
            Bound::Packed(w) => {
                kernels::packed_matmul(pool, x, &[kernels::Linear { w, bias: self.bias }], &mut [y]);
                return None;
            }
        }
        self.bias
    }
}

/// x and the projections' arrays, in the order in which [`bind_all`] takes them.
fn operands<'a>(x: &'a Tensor, projections: &[Projection<'a>]) -> Vec<&'a Tensor> {
    let mut operands = vec![x];
    for projection in projections {
        operands.extend(projection.weight.arrays());
        operands.extend(projection.bias);
    }
    operands
}

/// Of a projection's result.
fn output_shape(x: &Tensor, projection: Projection<'_>) -> Vec<i32> {
    let mut shape = x.shape().to_vec();
    shape.pop();
    let outputs = projection.weight.rows();
    match projection.heads {
        Some(heads) => shape.extend([dim(heads), dim(outputs / heads)]),
        None => shape.push(dim(outputs)),
    }
    shape
}

fn function(activation: Activation) -> kernels::Activation {
    match activation {
        Activation::Silu => kernels::Activation::Silu,
        Activation::Gelu => kernels::Activation::Gelu,
        Activation::GeluTanh => kernels::Activation::GeluTanh,
        Activation::QuickGelu => kernels::Activation::QuickGelu,
        Activation::Relu => kernels::Activation::Relu,
    }
}

fn require_f32(x: &Tensor) -> Result<()> {
    if x.dtype() == Dtype::Float32 {
        return Ok(());
    }
    Err(Error::Plan(format!("CPU kernels take f32 activations, not {:?}", x.dtype())))
}

impl Cpu {
    pub(super) fn linear<const N: usize>(&self, x: &Tensor, projections: [Projection<'_>; N]) -> Result<[Tensor; N]> {
        require_f32(x)?;
        let forms = projections.map(ProjectionForm::of);
        let shapes = projections.map(|p| output_shape(x, p));
        let outputs: [Output<'_>; N] = std::array::from_fn(|i| Output::f32(&shapes[i]));
        let pool = Arc::clone(&self.pool);
        cpu_primitive(&self.stream, c"linear", &operands(x, &projections), outputs, move |inputs, outputs| {
            let (x, layers) = (inputs[0].f32(), bind_all(&forms, inputs)?);
            let mut ys: Vec<_> = outputs.iter_mut().map(ViewMut::f32).collect();
            match layers.iter().map(Layer::packed).collect::<Option<Vec<_>>>() {
                Some(layers) => kernels::packed_matmul(&pool, x, &layers, &mut ys),
                None => layers.iter().zip(ys).for_each(|(layer, y)| layer.apply(&pool, x, y)),
            }
            Ok(())
        })
    }

    pub(super) fn linear_activated(
        &self,
        x: &Tensor,
        projection: Projection<'_>,
        activation: Activation,
    ) -> Result<Tensor> {
        require_f32(x)?;
        let (form, shape) = (ProjectionForm::of(projection), output_shape(x, projection));
        let (pool, activation) = (Arc::clone(&self.pool), function(activation));
        let (inputs, outputs) = (operands(x, &[projection]), [Output::f32(&shape)]);
        let [y] = cpu_primitive(&self.stream, c"linear_activated", &inputs, outputs, move |inputs, outputs| {
            let (layer, y) = (form.bind(inputs, &mut 1)?, outputs[0].f32());
            let added = layer.apply_unbiased(&pool, inputs[0].f32(), y);
            kernels::activation::biased(&pool, Some(activation), added, y);
            Ok(())
        })?;
        Ok(y)
    }

    pub(super) fn gated_linear(
        &self,
        x: &Tensor,
        projections: [Projection<'_>; 2],
        activation: Activation,
    ) -> Result<Tensor> {
        require_f32(x)?;
        let forms = projections.map(ProjectionForm::of);
        let shape = output_shape(x, projections[0]);
        let activation = function(activation);
        let pool = Arc::clone(&self.pool);
        let inputs = operands(x, &projections);
        if projections.iter().all(|p| matches!(p.weight, Matrix::Packed(_))) {
            let outputs = [Output::f32(&shape)];
            let [y] = cpu_primitive(&self.stream, c"gated_linear", &inputs, outputs, move |inputs, outputs| {
                let layers = bind_all(&forms, inputs)?;
                let [Some(gate), Some(up)] = [0, 1].map(|i| layers[i].packed()) else { return Err("packed".into()) };
                kernels::gated_matmul(&pool, inputs[0].f32(), [gate, up], activation, outputs[0].f32());
                Ok(())
            })?;
            return Ok(y);
        }
        // The second and third are room for what is gated.
        let outputs = [Output::f32(&shape); 3];
        let [y, _, _] = cpu_primitive(&self.stream, c"gated_linear", &inputs, outputs, move |inputs, outputs| {
            let [y, gate, up] = outputs else { return Err("three outputs".into()) };
            let (gate, up) = (gate.f32(), up.f32());
            let layers = bind_all(&forms, inputs)?;
            layers[0].apply(&pool, inputs[0].f32(), gate);
            layers[1].apply(&pool, inputs[0].f32(), up);
            kernels::activation::gated(&pool, activation, gate, up, y.f32());
            Ok(())
        })?;
        Ok(y)
    }

    pub(super) fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        require_f32(x)?;
        let (pool, activation) = (Arc::clone(&self.pool), function(activation));
        let [y] = cpu_primitive(&self.stream, c"activate", &[x], [Output::f32(x.shape())], move |inputs, outputs| {
            kernels::activation::activate(&pool, activation, inputs[0].f32(), outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }

    pub(super) fn embed(&self, ids: &Tensor, weight: &Matrix) -> Result<Tensor> {
        let form = Form::of(weight);
        let [rows, columns] = form.shape();
        let mut inputs = vec![ids];
        inputs.extend(weight.arrays());
        let shape = [ids.dim(0), dim(columns)];
        let pool = Arc::clone(&self.pool);
        let [y] = cpu_primitive(&self.stream, c"embed", &inputs, [Output::f32(&shape)], move |inputs, outputs| {
            let ids = inputs[0].u32();
            if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
                return Err(format!("token {id} is beyond the vocabulary of {rows}"));
            }
            let y = outputs[0].f32();
            match form.bind(inputs, &mut 1)? {
                Bound::Dense(weight) => kernels::widen_rows(&pool, &weight, ids, y),
                Bound::Quantized(weight) => kernels::dequantize_rows(&pool, &weight, ids, y),
                Bound::Packed(weight) => weight.dequantize_rows(&pool, ids, y),
            }
            Ok(())
        })?;
        Ok(y)
    }

    pub(super) fn softmax(&self, x: &Tensor) -> Result<Tensor> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let width = x.dim(-1) as usize;
        let [y] = cpu_primitive(&self.stream, c"softmax", &[x], [Output::f32(x.shape())], move |inputs, outputs| {
            kernels::softmax::softmax(&pool, inputs[0].f32(), width, outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }

    pub(super) fn rope<const N: usize>(
        &self,
        tensors: [&Tensor; N],
        batch: &Batch,
        frequencies: &RopeFrequencies,
    ) -> Result<[Tensor; N]> {
        for x in tensors {
            require_f32(x)?;
            if x.ndim() != 3 {
                return Err(Error::Plan(format!("rope wants [tokens, heads, head_dim], not {:?}", x.shape())));
            }
        }
        let RopeFrequencies { inv_freq, axes, magnitude, .. } = frequencies;
        let (pool, inv_freq, axes, magnitude) =
            (Arc::clone(&self.pool), Arc::clone(inv_freq), Arc::clone(axes), *magnitude);
        let layout = batch.at_evaluation();
        let outputs = tensors.map(|x| Output::f32(x.shape()));
        cpu_primitive(&self.stream, c"rope", &tensors, outputs, move |inputs, outputs| {
            let layout = layout.get();
            for (x, y) in inputs.iter().zip(outputs) {
                let rope = kernels::Rope {
                    heads: x.shape()[1] as usize,
                    head_dim: x.shape()[2] as usize,
                    inverse_frequencies: &inv_freq,
                    layout: kernels::RopeLayout::HalfSplit,
                    scale: magnitude,
                };
                kernels::rope(&pool, x.f32(), layout.rope_positions(&axes), &rope, y.f32());
            }
            Ok(())
        })
    }

    /// x [tokens, hidden], with `place` applied to each row that holds a picture's place and its features of that level.
    pub(super) fn features(
        &self,
        x: &Tensor,
        batch: &Batch,
        level: usize,
        place: impl Fn(&mut [f32], &[f32]) + Send + Sync + 'static,
    ) -> Result<Tensor> {
        require_f32(x)?;
        let layout = batch.at_evaluation();
        let outputs = [Output::f32(x.shape())];
        let [y] = cpu_primitive(&self.stream, c"features", &[x], outputs, move |inputs, outputs| {
            let (layout, y, width) = (layout.get(), outputs[0].f32(), inputs[0].shape()[1] as usize);
            y.copy_from_slice(inputs[0].f32());
            for placed in layout.features() {
                let features = placed.level(level, width)?;
                let rows = y[placed.row * width..].chunks_exact_mut(width);
                rows.zip(features.chunks_exact(width)).for_each(|(row, features)| place(row, features));
            }
            Ok(())
        })?;
        Ok(y)
    }

    /// What the stage before this one made of the batch: [tokens, width].
    pub(super) fn received(&self, batch: &Batch, width: usize) -> Result<Tensor> {
        let (layout, shape) = (batch.at_evaluation(), [dim(batch.len()), dim(width)]);
        let outputs = [Output::f32(&shape)];
        let [x] = cpu_primitive(&self.stream, c"received", &[&batch.tokens], outputs, move |_, outputs| {
            let (layout, x) = (layout.get(), outputs[0].f32());
            x.copy_from_slice(layout.received(width)?);
            Ok(())
        })?;
        Ok(x)
    }

    /// Rows of x [rows, …] whose results the batch is asked for.
    pub(super) fn wanted_rows(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        require_f32(x)?;
        let mut shape = x.shape().to_vec();
        shape[0] = dim(batch.wanted());
        let width = x.size() / batch.len();
        let layout = batch.at_evaluation();
        let outputs = [Output::f32(&shape)];
        let [y] = cpu_primitive(&self.stream, c"wanted_rows", &[x], outputs, move |inputs, outputs| {
            let (x, layout) = (inputs[0].f32(), layout.get());
            for (y, &row) in outputs[0].f32().chunks_exact_mut(width).zip(layout.wanted()) {
                y.copy_from_slice(&x[row as usize * width..][..width]);
            }
            Ok(())
        })?;
        Ok(y)
    }
}
