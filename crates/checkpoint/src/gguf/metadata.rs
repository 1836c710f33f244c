//! GGUF metadata: typed look-ups over the key-value pairs of the header.

use std::collections::HashMap;
use std::ops::Range;

use super::header::{STRING, scalar, scalar_size};

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(Scalar),
    Array(Array),
}

/// A single value; the widths of the file's types carry no meaning.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
}

impl Scalar {
    fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Float(x) => Some(*x),
            Self::Unsigned(n) => Some(*n as f64),
            Self::Signed(n) => Some(*n as f64),
            _ => None,
        }
    }
}

/// An array, left in the file until somebody asks: a vocabulary is most of a header.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) kind: u32,
    pub(super) bytes: Range<usize>,
}

/// The metadata of an open file.
#[derive(Clone, Copy)]
pub(super) struct Metadata<'a> {
    pub(super) file: &'a [u8],
    pub(super) values: &'a HashMap<String, Value>,
}

impl<'a> Metadata<'a> {
    fn scalar(&self, key: &str) -> Option<&'a Scalar> {
        match self.values.get(key)? {
            Value::Scalar(scalar) => Some(scalar),
            Value::Array(_) => None,
        }
    }

    pub(super) fn string(&self, key: &str) -> Option<&'a str> {
        match self.scalar(key)? {
            Scalar::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn bool(&self, key: &str) -> Option<bool> {
        match self.scalar(key)? {
            Scalar::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        self.scalar(key)?.float()
    }

    /// A number that is the same for every layer: a scalar, or an array whose elements are all equal.
    pub(super) fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        let found = match self.values.get(key) {
            None => return Ok(None),
            Some(Value::Scalar(scalar)) => scalar.unsigned(),
            Some(Value::Array(_)) => {
                let layers = self.numbers(key, Scalar::unsigned)?;
                let first = layers.first().copied();
                if layers.iter().any(|n| Some(*n) != first) {
                    return Err(format!("{key} differs between layers ({layers:?}), which is not supported"));
                }
                first
            }
        };
        found.map(Some).ok_or_else(|| format!("{key} is {:?}; wanted a whole number", self.values[key]))
    }

    /// A token id: present, and a number that fits.
    pub(super) fn id(&self, key: &str) -> Option<u32> {
        self.scalar(key)?.unsigned().and_then(|id| u32::try_from(id).ok())
    }

    /// An array of numbers; empty when the key is absent.
    fn numbers<T>(&self, key: &str, read: impl Fn(&Scalar) -> Option<T>) -> Result<Vec<T>, String> {
        let Some(value) = self.values.get(key) else { return Ok(Vec::new()) };
        let wrong = || format!("{key} is not an array of numbers");
        let Value::Array(Array { kind, bytes }) = value else { return Err(wrong()) };
        let size = scalar_size(*kind).ok_or_else(wrong)?;
        let elements = self.file[bytes.clone()].chunks_exact(size as usize);
        elements.map(|bytes| scalar(*kind, bytes).as_ref().and_then(&read).ok_or_else(wrong)).collect()
    }

    pub(super) fn floats(&self, key: &str) -> Result<Vec<f32>, String> {
        self.numbers(key, |scalar| scalar.float().map(|x| x as f32))
    }

    pub(super) fn integers(&self, key: &str) -> Result<Vec<i64>, String> {
        self.numbers(key, |scalar| match scalar {
            Scalar::Signed(n) => Some(*n),
            Scalar::Unsigned(n) => i64::try_from(*n).ok(),
            _ => None,
        })
    }

    /// The bytes of an array of strings, `None` when the key is absent.
    pub(super) fn texts(&self, key: &str) -> Result<Option<impl Iterator<Item = &'a [u8]>>, String> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let Value::Array(Array { kind: STRING, bytes }) = value else {
            return Err(format!("{key} is not an array of strings"));
        };
        let mut rest = &self.file[bytes.clone()];
        Ok(Some(std::iter::from_fn(move || {
            // The header's parser has walked these lengths already.
            let (length, tail) = rest.split_first_chunk::<8>()?;
            let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*length) as usize)?;
            rest = tail;
            Some(text)
        })))
    }

    /// An array of strings, `None` when the key is absent. Bytes that are not UTF-8 are replaced.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, String> {
        Ok(self.texts(key)?.map(|texts| texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()))
    }
}
