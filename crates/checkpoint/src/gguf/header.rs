//! The header of a GGUF file: metadata and tensor directory, versions 2 and 3.
//!
//! Source: the GGUF specification. Nothing in a header is believed before it is checked against the bytes that are
//! there; no length found in it sizes an allocation.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::kind::Kind;
use super::metadata::{Array, Scalar, Value};

/// Tensor data starts at, and every tensor offset is, a multiple of this unless the file says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Most dimensions a tensor may have.
const MAX_DIMENSIONS: u32 = 4;

/// A checked header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: HashMap<String, Value>,
    pub(super) tensors: Vec<TensorEntry>,
}

/// A tensor of the directory; `bytes` lies inside the file and fits `kind` and `shape`.
#[derive(Debug, Clone)]
pub(super) struct TensorEntry {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Outermost first, the reverse of the file's order.
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

/// Parses and checks the header of `file`. The error says what is wrong and where, without the file's name.
pub(super) fn parse(file: &[u8]) -> Result<Header, String> {
    let mut cursor = Cursor { file, at: 0 };
    let magic = cursor.take(4, "the magic")?;
    if magic != b"GGUF" {
        return Err(format!("not a GGUF file: it starts with {}, not \"GGUF\"", magic.escape_ascii()));
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        1 => return Err("GGUF version 1 is not supported; versions 2 and 3 are".to_owned()),
        version if matches!(version.swap_bytes(), 1..=3) => return Err("big-endian GGUF is not supported".to_owned()),
        version => return Err(format!("GGUF version {version} is not supported; versions 2 and 3 are")),
    }
    let tensor_count = cursor.u64("the tensor count")?;
    let metadata_count = cursor.u64("the metadata count")?;

    // Both loops end with the file at the latest: an entry takes at least a dozen bytes.
    let mut metadata = HashMap::new();
    for i in 0..metadata_count {
        let key = cursor.text(&format!("the key of metadata entry {i} of {metadata_count}"))?.to_owned();
        let value = cursor.value(&key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("metadata key `{key}` appears twice"));
        }
    }
    let mut announced = Vec::new();
    for i in 0..tensor_count {
        announced.push(cursor.tensor(i, tensor_count)?);
    }

    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(Value::Scalar(Scalar::Unsigned(n))) if n.is_power_of_two() && *n <= 1 << 16 => *n,
        Some(other) => return Err(format!("general.alignment is {other:?}; wanted a power of two up to 65536")),
    };
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let mut seen = HashSet::new();
    let mut tensors = Vec::with_capacity(announced.len());
    for tensor in announced {
        if !seen.insert(tensor.name) {
            return Err(format!("tensor {} appears twice", tensor.name));
        }
        tensors.push(tensor.locate(file.len(), data_start, alignment)?);
    }
    Ok(Header { metadata, tensors })
}

/// A tensor as the directory announces it.
struct Announced<'a> {
    name: &'a str,
    kind: u32,
    /// Innermost first.
    dimensions: Vec<u64>,
    offset: u64,
}

impl Announced<'_> {
    fn locate(&self, file: usize, data_start: u64, alignment: u64) -> Result<TensorEntry, String> {
        let wrong = |what: String| format!("tensor {}: {what}", self.name);
        let kind = Kind::from_number(self.kind).map_err(wrong)?;
        let (block, block_bytes) = kind.block();
        let row = self.dimensions.first().copied().unwrap_or(1);
        if !row.is_multiple_of(block as u64) {
            return Err(wrong(format!("rows of {row} elements do not hold whole {kind:?} blocks of {block}")));
        }
        if self.dimensions.contains(&0) {
            return Err(wrong(format!("dimensions {:?} hold a zero", self.dimensions)));
        }
        if !self.offset.is_multiple_of(alignment) {
            return Err(wrong(format!("offset {} is not a multiple of the alignment, {alignment}", self.offset)));
        }
        let elements = self.dimensions.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let bytes = elements.and_then(|n| (n / block as u64).checked_mul(block_bytes as u64));
        let start = data_start.checked_add(self.offset);
        let end = start.zip(bytes).and_then(|(start, bytes)| start.checked_add(bytes));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(wrong(format!("dimensions {:?} or offset {} are absurd", self.dimensions, self.offset)));
        };
        if end > file as u64 {
            return Err(wrong(format!("ends at byte {end}, beyond the end of the file at {file} (truncated?)")));
        }
        Ok(TensorEntry {
            name: self.name.to_owned(),
            kind,
            shape: self.dimensions.iter().rev().map(|&n| n as usize).collect(),
            bytes: start as usize..end as usize,
        })
    }
}

struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], String> {
        let rest = &self.file[self.at..];
        let Some(taken) = usize::try_from(n).ok().and_then(|n| rest.get(..n)) else {
            return Err(format!(
                "truncated or damaged: {what} at byte {} needs {n} bytes, the file has {} left",
                self.at,
                rest.len()
            ));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string's bytes.
    fn string(&mut self, what: &str) -> Result<&'a [u8], String> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    /// A string that must be UTF-8: names, but not values.
    fn text(&mut self, what: &str) -> Result<&'a str, String> {
        let at = self.at;
        std::str::from_utf8(self.string(what)?).map_err(|_| format!("{what} at byte {at} is not UTF-8"))
    }

    fn value(&mut self, key: &str) -> Result<Value, String> {
        let what = format!("the value of {key}");
        let kind = self.u32(&what)?;
        if kind != ARRAY {
            return self.scalar(kind, &what).map(Value::Scalar);
        }
        let kind = self.u32(&what)?;
        let length = self.u64(&what)?;
        let start = self.at;
        match (kind, scalar_size(kind)) {
            (STRING, _) => {
                for _ in 0..length {
                    self.string(&what)?;
                }
            }
            (_, Some(size)) => {
                let bytes = length
                    .checked_mul(size)
                    .ok_or_else(|| format!("{what} announces {length} elements, which is absurd"))?;
                self.take(bytes, &what)?;
            }
            (ARRAY, _) => return Err(format!("{what} is an array of arrays, which is not supported")),
            _ => return Err(format!("{what} is an array of unknown type {kind}")),
        }
        Ok(Value::Array(Array { kind, bytes: start..self.at }))
    }

    fn scalar(&mut self, kind: u32, what: &str) -> Result<Scalar, String> {
        if kind == STRING {
            return Ok(Scalar::String(String::from_utf8_lossy(self.string(what)?).into_owned()));
        }
        let size = scalar_size(kind).ok_or_else(|| format!("{what} has unknown type {kind}"))?;
        let bytes = self.take(size, what)?;
        scalar(kind, bytes).ok_or_else(|| format!("{what} is not valid for its type {kind}"))
    }

    fn tensor(&mut self, i: u64, count: u64) -> Result<Announced<'a>, String> {
        let name = self.text(&format!("the name of tensor {i} of {count}"))?;
        let what = format!("tensor `{name}` ({i} of {count})");
        let rank = self.u32(&what)?;
        if rank > MAX_DIMENSIONS {
            return Err(format!("{what} has {rank} dimensions, more than {MAX_DIMENSIONS}"));
        }
        let dimensions = (0..rank).map(|_| self.u64(&what)).collect::<Result<_, _>>()?;
        Ok(Announced { name, dimensions, kind: self.u32(&what)?, offset: self.u64(&what)? })
    }
}

pub(super) const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a value of scalar type `kind`; `None` for strings, arrays and unknown types.
pub(super) fn scalar_size(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// Reads a value of scalar type `kind` from exactly its bytes.
pub(super) fn scalar(kind: u32, bytes: &[u8]) -> Option<Scalar> {
    Some(match kind {
        0 => Scalar::Unsigned(bytes.first().copied()?.into()),
        1 => Scalar::Signed(i8::from_le_bytes(bytes.try_into().ok()?).into()),
        2 => Scalar::Unsigned(u16::from_le_bytes(bytes.try_into().ok()?).into()),
        3 => Scalar::Signed(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        4 => Scalar::Unsigned(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        5 => Scalar::Signed(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        6 => Scalar::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        7 => Scalar::Bool(bytes.first().copied()? != 0),
        10 => Scalar::Unsigned(u64::from_le_bytes(bytes.try_into().ok()?)),
        11 => Scalar::Signed(i64::from_le_bytes(bytes.try_into().ok()?)),
        12 => Scalar::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}
