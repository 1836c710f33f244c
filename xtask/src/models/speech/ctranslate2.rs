//! Reading `model.bin`, CTranslate2's format.
//!
//! Source: CTranslate2's `model_spec.py` (as facts): version, the specification's name and revision, then a list of named arrays, then a
//! list of second names.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail, ensure};

/// An array of f16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    pub shape: Vec<usize>,
    /// Row-major, little-endian.
    pub bytes: Vec<u8>,
}

/// The number that stands for f16.
const HALF: u8 = 4;

/// All arrays of a file, which must be of f16.
pub fn read(path: &Path) -> Result<BTreeMap<String, Array>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Array>> {
    let mut rest = Rest(bytes);
    let version = rest.u32()?;
    ensure!(version == 6, "version {version} of the format is not known");
    let _specification = rest.text()?;
    let _revision = rest.u32()?;
    let mut arrays = BTreeMap::new();
    for _ in 0..rest.u32()? {
        let name = rest.text()?;
        let dimensions = rest.take(1)?[0];
        let shape: Vec<usize> = (0..dimensions).map(|_| Ok(rest.u32()? as usize)).collect::<Result<_>>()?;
        let kind = rest.take(1)?[0];
        let length = rest.u32()? as usize;
        let bytes = rest.take(length)?;
        // Settings are single bytes: they are not wanted.
        if kind != HALF {
            ensure!(length <= 8, "{name} is not in f16");
            continue;
        }
        ensure!(shape.iter().product::<usize>() * 2 == length, "{name} of shape {shape:?} has {length} bytes");
        arrays.insert(name, Array { shape, bytes: bytes.to_vec() });
    }
    Ok(arrays)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else { bail!("it ends too early") };
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    /// A length in two bytes, and so many bytes, of which the last is 0.
    fn text(&mut self) -> Result<String> {
        let length = u16::from_le_bytes(self.take(2)?.try_into().expect("two bytes"));
        let bytes = self.take(length.into())?;
        let text = bytes.strip_suffix(&[0]).context("a name without its end")?;
        Ok(String::from_utf8(text.to_vec())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut bytes = 6u32.to_le_bytes().to_vec();
        bytes.extend(b"\x05\0spec\0\x01\0\0\0");
        bytes.extend(2u32.to_le_bytes());
        bytes.extend(b"\x02\0a\0\x02\x01\0\0\0\x02\0\0\0\x04\x04\0\0\0\x01\x02\x03\x04");
        bytes.extend(b"\x02\0b\0\0\x01\x01\0\0\0\x07");
        bytes.extend(0u32.to_le_bytes());
        bytes
    }

    #[test]
    fn arrays_are_read() {
        let arrays = parse(&file()).unwrap();
        assert_eq!(arrays.len(), 1);
        assert_eq!(arrays["a"], Array { shape: vec![1, 2], bytes: vec![1, 2, 3, 4] });
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let file = file();
        for length in [0, 3, 9, 20, 40] {
            assert!(parse(&file[..length]).is_err(), "{length}");
        }
    }
}
