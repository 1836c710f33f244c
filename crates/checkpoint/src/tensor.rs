//! Tensors as they lie in files, described in plain terms.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The element type of a [`DenseTensor`]; little-endian, as in every file format we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8 bit.
    U8,
    /// Signed 8 bit.
    I8,
    /// Unsigned 16 bit.
    U16,
    /// Signed 16 bit.
    I16,
    /// Unsigned 32 bit; also the words that hold quantized codes.
    U32,
    /// Signed 32 bit.
    I32,
    /// Unsigned 64 bit.
    U64,
    /// Signed 64 bit.
    I64,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The name that safetensors headers use, such as `BF16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::U16 => "U16",
            Self::I16 => "I16",
            Self::U32 => "U32",
            Self::I32 => "I32",
            Self::U64 => "U64",
            Self::I64 => "I64",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
        }
    }

    /// Whether the element is a floating-point number.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A row-major tensor of plain numbers.
#[derive(Clone)]
pub struct DenseTensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Lengths of the dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, little-endian, `shape.product() * dtype.size()` bytes. Borrowed from the mapped file where the
    /// file holds them in this form.
    ///
    /// Files promise no alignment: check it before viewing the bytes as anything wider.
    pub bytes: Cow<'a, [u8]>,
    owner: Option<Arc<dyn Any + Send + Sync>>,
}

impl<'a> DenseTensor<'a> {
    /// A tensor over `bytes`, which must hold `shape` elements of `dtype`.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        let bytes = bytes.into();
        debug_assert_eq!(shape.iter().product::<usize>() * dtype.size(), bytes.len(), "{dtype} {shape:?}");
        Self { dtype, shape, bytes, owner: None }
    }

    /// The same, over bytes of a mapping that `owner` keeps alive.
    pub(crate) fn mapped(dtype: Dtype, shape: Vec<usize>, bytes: &'a [u8], owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { owner: Some(owner), ..Self::new(dtype, shape, bytes) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds the memory behind borrowed [`bytes`](Self::bytes) alive, apart from the checkpoint they came from: whoever
    /// keeps a clone may read those bytes by address after the checkpoint is gone. `None` when the bytes are owned.
    pub fn owner(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.owner.clone()
    }
}

impl fmt::Debug for DenseTensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if matches!(self.bytes, Cow::Borrowed(_)) { "mapped" } else { "owned" };
        write!(f, "DenseTensor({} {:?}, {place})", self.dtype, self.shape)
    }
}

/// How a group of quantized codes becomes numbers again; the modes of MLX's `quantize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantMode {
    /// `w = scale · code + bias`, an unsigned code.
    Affine,
    /// OCP microscaling, E2M1 codes and an E8M0 scale per 32.
    Mxfp4,
    /// OCP microscaling, E4M3 codes and an E8M0 scale per 32.
    Mxfp8,
    /// NVIDIA's E2M1 codes with an E4M3 scale per 16.
    Nvfp4,
}

impl QuantMode {
    /// The name `config.json` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }
}

impl fmt::Display for QuantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Mode, code width and group size of one quantized weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuantParams {
    /// What the codes mean.
    pub mode: QuantMode,
    /// Bits of a code.
    pub bits: u8,
    /// Consecutive elements of a row that share a scale.
    pub group_size: usize,
}

/// A quantized weight in MLX's layout, whatever the file was.
///
/// The codes of a row are a little-endian bit stream: code `i` occupies bits `i * bits ..` of the row, lowest bits
/// first; rows are whole 32-bit words. (For 2, 4 and 8 bits that is "8, 4, … codes per word, low bits first"; 3, 5 and 6
/// bit codes cross word boundaries.)
#[derive(Debug, Clone)]
pub struct QuantizedTensor<'a> {
    /// What the codes mean.
    pub mode: QuantMode,
    /// Bits of a code.
    pub bits: u8,
    /// Consecutive elements of a row that share a scale.
    pub group_size: usize,
    /// Logical shape `[.., out, in]`: two dimensions, or three with experts in front.
    pub shape: Vec<usize>,
    /// `U32 [.., out, in * bits / 32]`.
    pub packed: DenseTensor<'a>,
    /// `[.., out, in / group_size]`: a float for [`QuantMode::Affine`], `U8` codes of the scale otherwise.
    pub scales: DenseTensor<'a>,
    /// As `scales`; [`QuantMode::Affine`] only.
    pub biases: Option<DenseTensor<'a>>,
}

/// One weight of a checkpoint.
#[derive(Debug, Clone)]
pub enum TensorData<'a> {
    /// Plain numbers.
    Dense(DenseTensor<'a>),
    /// Codes with scales.
    Quantized(QuantizedTensor<'a>),
}

impl TensorData<'_> {
    /// The logical shape, `[.., out, in]` for quantized weights.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Dense(t) => &t.shape,
            Self::Quantized(t) => &t.shape,
        }
    }
}

/// How a tensor's numbers are held once read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Plain numbers of this type.
    Dense(Dtype),
    /// Codes with scales.
    Quantized(QuantParams),
}

/// What [`Checkpoint::spec`](crate::Checkpoint::spec) knows of a tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Logical shape.
    pub shape: Vec<usize>,
    /// How [`Checkpoint::tensor`](crate::Checkpoint::tensor) will give it.
    pub storage: Storage,
    /// Bytes in the file, scales and biases included.
    pub file_bytes: u64,
}

impl TensorSpec {
    /// Number of weights (logical elements, scales and biases not counted).
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}
