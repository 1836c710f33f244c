//! Loading a model: typed configuration, tensors by name and wanted shape, and a tally of what was taken.

mod convolution;
mod experts;
mod integers;
mod patches;
mod transposed;
mod view;

use std::{
    cell::{Cell, Ref, RefCell},
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::Arc,
};

use mlx_rs::Dtype;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vllm_checkpoint::{DenseTensor, QuantMode, QuantizedTensor, TensorData};
use vllm_kernels_cpu::{PackedMatrix, QuantMatrix, WeightArena};
use vllm_platform::{DeviceKind, LoadProgress};

use crate::{
    Error, Matrix, Ops, QuantizedMatrix, Result, Tensor,
    batch::dim,
    ffi,
    fingerprint::tensor_digest,
    nn::{Embedding, LayerNorm, Linear, MediaFeatures, Received, RmsNorm},
};

pub use convolution::Directions;
pub(crate) use view::View;

/// What the names of a language model begin with, its output layer's aside.
const MODEL: &str = "model.";

/// Whether a linear layer has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// `y = x·Wᵀ`.
    None,
    /// `y = x·Wᵀ + b`.
    Added,
}

impl From<bool> for Bias {
    fn from(added: bool) -> Self {
        if added { Self::Added } else { Self::None }
    }
}

/// What all scopes of one load share.
pub(crate) struct Loading<'a> {
    view: &'a View<'a>,
    ops: Ops,
    /// Of activations, norms and biases.
    dtype: Dtype,
    device: DeviceKind,
    /// Layers to load, if not all.
    stage: Option<Range<usize>>,
    /// Digests of the tensors that were taken, by name.
    digests: RefCell<BTreeMap<String, [u8; 32]>>,
    taken: RefCell<HashSet<String>>,
    progress: RefCell<LoadProgress<'a>>,
    total: usize,
    /// Whether the checkpoint is of a model without its output layer, whose names lack the leading `model.`.
    bare: bool,
    parameters: Cell<u64>,
    bytes: Cell<u64>,
    /// Those of them in memory that isn't MLX's.
    in_place: Cell<u64>,
    /// Of packed weights.
    arena: WeightArena,
    /// Parameters by how they are stored.
    formats: RefCell<BTreeMap<String, u64>>,
}

impl<'a> Loading<'a> {
    pub(crate) fn new(
        view: &'a View<'a>,
        ops: Ops,
        dtype: Dtype,
        device: DeviceKind,
        progress: LoadProgress<'a>,
    ) -> Self {
        Self {
            total: view.names().count(),
            bare: !view.names().any(|name| name.starts_with(MODEL)),
            view,
            ops,
            dtype,
            device,
            stage: None,
            digests: RefCell::default(),
            taken: RefCell::default(),
            progress: RefCell::new(progress),
            parameters: Cell::new(0),
            bytes: Cell::new(0),
            in_place: Cell::new(0),
            arena: WeightArena::new(),
            formats: RefCell::default(),
        }
    }

    /// Of these layers only.
    pub(crate) fn of_stage(self, stage: Option<Range<usize>>) -> Self {
        Self { stage, ..self }
    }

    /// Parameters of what was taken; a quantized weight counts as what it stands for.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters.get()
    }

    /// Bytes of what was taken, as held in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Bytes of weights that MLX's memory figures don't include.
    pub(crate) fn in_place_bytes(&self) -> u64 {
        self.in_place.get()
    }

    /// How the weight matrices are stored, the most common first: `affine 4 bit group 32 + affine 8 bit group 32`.
    pub(crate) fn quantization(&self) -> String {
        let formats = self.formats.borrow();
        let mut formats: Vec<_> = formats.iter().collect();
        formats.sort_by_key(|&(_, parameters)| std::cmp::Reverse(parameters));
        formats.into_iter().map(|(format, _)| format.as_str()).collect::<Vec<_>>().join(" + ")
    }

    /// `config.json`, or the part's share of it.
    pub(crate) fn config(&self) -> &'a Value {
        &self.view.config
    }

    pub(crate) fn device(&self) -> DeviceKind {
        self.device
    }

    /// Digests of the tensors that were taken, by name.
    pub(crate) fn digests(&self) -> Ref<'_, BTreeMap<String, [u8; 32]>> {
        self.digests.borrow()
    }

    /// A tensor out of the file, whose digest is noted.
    fn read(&self, path: &str) -> Result<TensorData<'a>> {
        let tensor = self.view.tensor(path)?;
        self.digests.borrow_mut().entry(path.into()).or_insert_with(|| tensor_digest(&tensor));
        Ok(tensor)
    }

    /// Every tensor must have found its place.
    pub(crate) fn finish(&self) -> Result<()> {
        let taken = self.taken.borrow();
        let mut left: Vec<_> = self.view.names().filter(|name| !taken.contains(*name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        left.sort_unstable();
        let names = left.iter().take(4).copied().collect::<Vec<_>>().join(", ");
        let more = if left.len() > 4 { ", …" } else { "" };
        Err(Error::Surplus { count: left.len(), architecture: self.view.architecture.clone(), names: names + more })
    }

    fn take(&self, name: String, parameters: usize, bytes: usize) {
        // What was copied or repacked out of the file needs its pages there no longer.
        self.view.release(&name);
        let mut taken = self.taken.borrow_mut();
        if taken.insert(name) {
            self.parameters.set(self.parameters.get() + parameters as u64);
            self.bytes.set(self.bytes.get() + bytes as u64);
            (self.progress.borrow_mut())(taken.len(), self.total);
        }
    }
}

/// Where a model takes its configuration and tensors from, at one place in the tree of names.
///
/// Every tensor is asked for by name and shape, and ticked off: one that is missing or has another shape is an error
/// that names it, and so is one that nobody took.
pub struct LoadContext<'a> {
    shared: &'a Loading<'a>,
    prefix: String,
}

impl<'a> LoadContext<'a> {
    pub(crate) fn root(shared: &'a Loading<'a>) -> Self {
        Self { shared, prefix: String::new() }
    }

    /// The scope `name` below this one: `ctx.at("model").at("norm")` speaks of `model.norm.…`.
    #[must_use]
    pub fn at(&self, name: &str) -> Self {
        Self { shared: self.shared, prefix: self.path(name) }
    }

    fn path(&self, name: &str) -> String {
        let path = if self.prefix.is_empty() { name.into() } else { format!("{}.{name}", self.prefix) };
        match path.strip_prefix(MODEL) {
            Some(rest) if self.shared.bare => rest.into(),
            _ => path,
        }
    }

    /// `config.json` as a type.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        serde_path_to_error::deserialize(self.config_json()).map_err(|e| Error::Config(e.to_string()))
    }

    /// `config.json` as it is.
    #[must_use]
    pub fn config_json(&self) -> &'a Value {
        self.shared.config()
    }

    /// The operations of the device that the model is loaded for.
    #[must_use]
    pub fn ops(&self) -> Ops {
        self.shared.ops.clone()
    }

    /// The layers to load, where they are spread over machines; `None`: all, with what comes before and after them.
    #[must_use]
    pub fn stage(&self) -> Option<Range<usize>> {
        self.shared.stage.clone()
    }

    /// What takes the embedding's place in all stages but the first: hidden states of `width` numbers.
    #[must_use]
    pub fn received(&self, width: usize) -> Received {
        Received::new(self.ops(), width, self.shared.dtype)
    }

    /// Whether the checkpoint has a tensor of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.shared.view.has(&self.path(name))
    }

    /// The shape that a tensor has in the file, for sizes that no configuration says.
    ///
    /// # Errors
    /// If it is missing.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(match self.shared.view.tensor(&self.path(name))? {
            TensorData::Dense(tensor) => tensor.shape,
            TensorData::Quantized(tensor) => tensor.shape,
        })
    }

    /// What puts features of pictures in the place of tokens, if this is the language part of a model that sees.
    #[must_use]
    pub fn media(&self) -> MediaFeatures {
        MediaFeatures::new(self.ops(), self.shared.view.media_levels)
    }

    /// Leaves aside every tensor in this scope whose name `unused` accepts: a reason belongs beside each call.
    pub fn ignore(&self, unused: impl Fn(&str) -> bool) {
        let names: Vec<String> = self.shared.view.names().map(Into::into).collect();
        for name in names {
            let local = if self.prefix.is_empty() {
                Some(name.as_str())
            } else {
                name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('.'))
            };
            if local.is_some_and(&unused) {
                self.shared.take(name, 0, 0);
            }
        }
    }

    /// A linear layer: `name.weight` [`outputs`, `inputs`], quantized or not, and `name.bias` `[outputs]`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: Bias) -> Result<Linear> {
        let scope = self.at(name);
        let weight = scope.matrix("weight", outputs, inputs)?;
        let bias = match bias {
            Bias::Added => Some(scope.tensor("bias", &[outputs])?),
            Bias::None => None,
        };
        Ok(Linear::new(self.ops(), weight, bias))
    }

    /// An embedding: `name.weight` [`vocab`, `hidden`], quantized or not.
    ///
    /// # Errors
    /// If the tensor is missing or has another shape.
    pub fn embedding(&self, name: &str, vocab: usize, hidden: usize) -> Result<Embedding> {
        Ok(Embedding::new(self.ops(), self.at(name).matrix("weight", vocab, hidden)?))
    }

    /// An RMS norm: `name.weight` `[size]`.
    ///
    /// # Errors
    /// If the tensor is missing or has another shape.
    pub fn rms_norm(&self, name: &str, size: usize, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.ops(), self.at(name).tensor("weight", &[size])?, eps))
    }

    /// Gemma's RMS norm, whose stored weight is the factor's distance from one.
    ///
    /// # Errors
    /// If the tensor is missing or has another shape.
    pub fn rms_norm_plus_one(&self, name: &str, size: usize, eps: f32) -> Result<RmsNorm> {
        let weight = self.at(name).tensor("weight", &[size])?;
        let one = Tensor::from_f32(1.0).as_dtype(weight.dtype())?;
        let weight = weight.add(&one)?;
        weight.eval()?;
        Ok(RmsNorm::new(self.ops(), weight, eps))
    }

    /// A layer norm: `name.weight` `[size]` and, if there is one, `name.bias` `[size]`.
    ///
    /// # Errors
    /// If the weight is missing or a tensor has another shape.
    pub fn layer_norm(&self, name: &str, size: usize, eps: f32) -> Result<LayerNorm> {
        let scope = self.at(name);
        let bias = if scope.has("bias") { Some(scope.tensor("bias", &[size])?) } else { None };
        Ok(LayerNorm::new(self.ops(), scope.tensor("weight", &[size])?, bias, eps))
    }

    /// A plain tensor in the activations' type.
    ///
    /// # Errors
    /// If it is missing, quantized, or has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let path = self.path(name);
        let TensorData::Dense(dense) = self.shared.read(&path)? else {
            return Err(Error::Tensor {
                name: path,
                problem: "is quantized; this layer needs it in f32, f16 or bf16".into(),
            });
        };
        check_shape(&path, &dense.shape, shape)?;
        let array = self.dense(dense)?.as_dtype(self.shared.dtype)?;
        array.eval()?;
        self.shared.take(path, array.size(), array.nbytes());
        Ok(array)
    }

    /// Numbers that the model knows by itself, in the activations' type.
    ///
    /// # Errors
    /// MLX's own.
    pub fn constant(&self, numbers: &[f32], shape: &[usize]) -> Result<Tensor> {
        let shape: Vec<i32> = shape.iter().map(|&n| dim(n)).collect();
        let array = Tensor::from_slice(numbers, &shape).as_dtype(self.shared.dtype)?;
        array.eval()?;
        Ok(array)
    }

    /// A weight matrix [`rows`, `columns`], quantized or not.
    ///
    /// # Errors
    /// If it is missing, or has another shape.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let path = self.path(name);
        let matrix = match self.shared.read(&path)? {
            TensorData::Dense(dense) => {
                check_shape(&path, &dense.shape, &[rows, columns])?;
                let array = self.dense(dense)?;
                Matrix::Dense(if self.on_cpu() {
                    array
                } else {
                    // The GPU's kernels want operands of one type.
                    let array = array.as_dtype(self.shared.dtype)?;
                    array.eval()?;
                    array
                })
            }
            TensorData::Quantized(quantized) => {
                check_shape(&path, &quantized.shape, &[rows, columns])?;
                match self.packed(&quantized, rows, columns) {
                    Some(packed) => Matrix::Packed(Arc::new(packed)),
                    None => Matrix::Quantized(self.quantized(quantized, rows, columns)?),
                }
            }
        };
        self.took(path, rows * columns, matrix)
    }

    /// Ticks a matrix off.
    fn took(&self, path: String, parameters: usize, matrix: Matrix) -> Result<Matrix> {
        *self.shared.formats.borrow_mut().entry(matrix.to_string()).or_default() += parameters as u64;
        self.shared.take(path, parameters, matrix.nbytes());
        Ok(matrix)
    }

    fn on_cpu(&self) -> bool {
        self.shared.device == DeviceKind::Cpu
    }

    fn dense(&self, tensor: DenseTensor<'_>) -> Result<Tensor> {
        let shape: Vec<i32> = tensor.shape.iter().map(|&n| dim(n)).collect();
        let (array, in_place) = ffi::import(tensor, &shape, self.on_cpu())?;
        if in_place {
            self.count_in_place(array.nbytes());
        }
        Ok(array)
    }

    fn count_in_place(&self, bytes: usize) {
        self.shared.in_place.set(self.shared.in_place.get() + bytes as u64);
    }

    /// The matrix as the CPU's kernels want it; `None` where they take it as it is in the file, and on other devices.
    fn packed(&self, tensor: &QuantizedTensor<'_>, rows: usize, columns: usize) -> Option<PackedMatrix> {
        let (pool, _) = self.shared.ops.threads()?;
        let (QuantMode::Affine, Some(biases)) = (tensor.mode, &tensor.biases) else { return None };
        let words = ffi::elements(&tensor.packed.bytes);
        let (scales, biases) = (ffi::NumberView::new(&tensor.scales)?, ffi::NumberView::new(biases)?);
        let shape = [rows, columns];
        let (bits, group_size) = (tensor.bits, tensor.group_size);
        // What is wrong with a matrix is said where it is used as it is.
        let w = QuantMatrix::affine(&words, scales.floats(), biases.floats(), shape, bits, group_size).ok()?;
        let packed = PackedMatrix::pack(pool, &self.shared.arena, &w)?;
        self.count_in_place(packed.nbytes());
        Some(packed)
    }

    fn quantized(&self, tensor: QuantizedTensor<'_>, rows: usize, columns: usize) -> Result<QuantizedMatrix> {
        let mode = tensor.mode;
        let scales = |part: DenseTensor<'_>| -> Result<Tensor> {
            let array = self.dense(part)?;
            if self.on_cpu() || mode != QuantMode::Affine {
                return Ok(array);
            }
            // MLX promotes the activations to the scales' type: keep them equal.
            let array = array.as_dtype(self.shared.dtype)?;
            array.eval()?;
            Ok(array)
        };
        Ok(QuantizedMatrix {
            packed: self.dense(tensor.packed)?,
            scales: scales(tensor.scales)?,
            biases: tensor.biases.map(scales).transpose()?,
            rows,
            columns,
            bits: tensor.bits,
            group_size: tensor.group_size,
            mode,
        })
    }
}

fn check_shape(name: &str, found: &[usize], wanted: &[usize]) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::Shape { name: name.into(), found: found.into(), wanted: wanted.into() })
}
