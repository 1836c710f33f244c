//! One safetensors file, mapped. The header is checked by the `safetensors` crate; this file adds names to its errors.

use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo};
use safetensors::{Dtype as FileDtype, SafeTensors};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::tensor::{DenseTensor, Dtype};

/// Bytes of the header's length field.
const LENGTH_FIELD: usize = 8;

/// A mapped safetensors file with a checked header: every tensor it lists lies inside it.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    file: MappedFile,
    metadata: Metadata,
    data_start: usize,
}

impl SafetensorsFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let (header, metadata) =
            SafeTensors::read_metadata(file.bytes()).map_err(|e| Error::malformed(path, explain(&e, file.bytes())))?;
        Ok(Self { file, metadata, data_start: LENGTH_FIELD + header })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Shape and element type of a tensor of this file.
    pub(crate) fn info(&self, name: &str) -> Result<(Dtype, &[usize], usize)> {
        let info = self.tensor_info(name)?;
        let dtype = dtype(info.dtype).ok_or_else(|| {
            Error::unsupported(
                self.path(),
                format!("tensor {name} has element type {:?}, which is not supported", info.dtype),
            )
        })?;
        Ok((dtype, &info.shape, info.data_offsets.1 - info.data_offsets.0))
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<DenseTensor<'_>> {
        let (dtype, shape, _) = self.info(name)?;
        let range = self.range(self.tensor_info(name)?);
        Ok(DenseTensor::mapped(dtype, shape.to_vec(), &self.file.bytes()[range], self.file.owner()))
    }

    pub(crate) fn release(&self, name: &str) {
        if let Ok(info) = self.tensor_info(name) {
            self.file.release(self.range(info));
        }
    }

    fn tensor_info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| {
            let names = self.names();
            Error::missing(self.path(), name, names.iter().map(String::as_str))
        })
    }

    fn range(&self, info: &TensorInfo) -> Range<usize> {
        self.data_start + info.data_offsets.0..self.data_start + info.data_offsets.1
    }
}

fn dtype(dtype: FileDtype) -> Option<Dtype> {
    Some(match dtype {
        FileDtype::BOOL => Dtype::Bool,
        FileDtype::U8 => Dtype::U8,
        FileDtype::I8 => Dtype::I8,
        FileDtype::U16 => Dtype::U16,
        FileDtype::I16 => Dtype::I16,
        FileDtype::U32 => Dtype::U32,
        FileDtype::I32 => Dtype::I32,
        FileDtype::U64 => Dtype::U64,
        FileDtype::I64 => Dtype::I64,
        FileDtype::F16 => Dtype::F16,
        FileDtype::BF16 => Dtype::Bf16,
        FileDtype::F32 => Dtype::F32,
        FileDtype::F64 => Dtype::F64,
        _ => return None,
    })
}

/// What a header error means to somebody who has the file in front of them.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let header = bytes.first_chunk::<LENGTH_FIELD>().map(|n| u64::from_le_bytes(*n));
    match (error, header) {
        (SafeTensorError::HeaderTooSmall, _) => {
            format!("not a safetensors file: {} bytes, too short for a header", bytes.len())
        }
        (SafeTensorError::HeaderTooLarge, Some(n)) => {
            format!("not a safetensors file: its first 8 bytes announce a header of {n} bytes")
        }
        (SafeTensorError::InvalidHeaderLength, Some(n)) => format!(
            "truncated, or not a safetensors file: the header should have {n} bytes, the file has {}",
            bytes.len()
        ),
        (SafeTensorError::InvalidHeader(e), _) => format!("not a safetensors file: the header is not text ({e})"),
        (SafeTensorError::InvalidHeaderDeserialization(e), _) => {
            format!("not a safetensors file: the header is not valid JSON ({e})")
        }
        (SafeTensorError::InvalidOffset(name), _) => {
            format!("tensor {name}: its data_offsets leave a gap, overlap another tensor or run backwards")
        }
        (SafeTensorError::TensorInvalidInfo, _) => {
            "a tensor's data_offsets do not fit its shape and element type".to_owned()
        }
        (SafeTensorError::MetadataIncompleteBuffer, Some(n)) => {
            let wanted = data_end(bytes, n).map_or(0, |end| end.saturating_add(n).saturating_add(LENGTH_FIELD as u64));
            let found = bytes.len() as u64;
            let verdict =
                if found < wanted { "truncated: an offset lies beyond the end of the file" } else { "damaged" };
            format!("{verdict}; the header describes {wanted} bytes, the file has {found}")
        }
        _ => format!("not a sound safetensors file: {error}"),
    }
}

/// Where the last tensor of a header of `header` bytes ends, counted from the start of the data.
fn data_end(bytes: &[u8], header: u64) -> Option<u64> {
    let end = LENGTH_FIELD.checked_add(usize::try_from(header).ok()?)?;
    let header: Value = serde_json::from_slice(bytes.get(LENGTH_FIELD..end)?).ok()?;
    header.as_object()?.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64()).max()
}
