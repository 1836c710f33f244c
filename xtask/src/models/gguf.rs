//! Writing GGUF files, as much of the format as the random models need.
//!
//! Source: the GGUF specification (version 3) and llama.cpp's `ggml-common.h` for the blocks (as facts).

use std::io::{Result, Write};

/// Elements of a block.
const BLOCK: u64 = 32;
/// Where tensors begin: multiples of this.
const ALIGNMENT: u64 = 32;

/// How a tensor's numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "GGML's own names")]
pub enum Kind {
    /// f32, all of them 1: norms.
    Ones,
    /// An f16 scale and 4-bit codes around 8.
    Q4_0,
    /// An f16 scale, an f16 minimum and 4-bit codes.
    Q4_1,
    /// An f16 scale and signed bytes.
    Q8_0,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Ones => 0,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
        }
    }

    /// `general.file_type` of a file whose matrices are of this kind.
    pub fn file_type(self) -> u32 {
        match self {
            Self::Ones => 0,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 7,
        }
    }

    /// Bytes of so many numbers.
    pub const fn bytes(self, elements: u64) -> u64 {
        elements / BLOCK
            * match self {
                Self::Ones => 128,
                Self::Q4_0 => 18,
                Self::Q4_1 => 20,
                Self::Q8_0 => 34,
            }
    }

    /// Writes random numbers of mean about 0 and standard deviation about 0.03: the size of an activation passes through a matrix of
    /// about a thousand columns unchanged.
    pub fn write_random(self, elements: u64, random: &mut impl FnMut() -> u64, to: &mut impl Write) -> Result<()> {
        for _ in 0..elements / BLOCK {
            match self {
                Self::Ones => to.write_all(&[1f32.to_le_bytes(); BLOCK as usize].concat())?,
                Self::Q4_0 => {
                    to.write_all(&half(-8, random()).to_le_bytes())?;
                    bytes::<2>(random, to)?;
                }
                Self::Q4_1 => {
                    let drawn = random();
                    to.write_all(&half(-8, drawn).to_le_bytes())?;
                    // Eight times the scale, below zero.
                    to.write_all(&(half(-5, drawn) | 0x8000).to_le_bytes())?;
                    bytes::<2>(random, to)?;
                }
                Self::Q8_0 => {
                    to.write_all(&half(-12, random()).to_le_bytes())?;
                    bytes::<4>(random, to)?;
                }
            }
        }
        Ok(())
    }
}

/// The bits of a half from 2ᵉ to twice that.
fn half(exponent: i16, random: u64) -> u16 {
    (((15 + exponent) as u16) << 10) | (random & 0x3ff) as u16
}

/// `8 · WORDS` bytes.
fn bytes<const WORDS: usize>(random: &mut impl FnMut() -> u64, to: &mut impl Write) -> Result<()> {
    for _ in 0..WORDS {
        to.write_all(&random().to_le_bytes())?;
    }
    Ok(())
}

/// Metadata and the list of tensors, which lie one after the other in that order.
#[derive(Default)]
pub struct Header {
    entries: Vec<u8>,
    entry_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    /// Where the next tensor begins, counted from the first.
    offset: u64,
}

impl Header {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        put_text(&mut self.entries, key);
        self.entries.extend(kind.to_le_bytes());
        self.entries.extend(value);
        self.entry_count += 1;
    }

    pub fn unsigned(&mut self, key: &str, value: u32) {
        self.entry(key, 4, &value.to_le_bytes());
    }

    pub fn float(&mut self, key: &str, value: f32) {
        self.entry(key, 6, &value.to_le_bytes());
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, 7, &[value.into()]);
    }

    pub fn text(&mut self, key: &str, value: &str) {
        let mut bytes = vec![];
        put_text(&mut bytes, value);
        self.entry(key, TEXT, &bytes);
    }

    pub fn texts(&mut self, key: &str, values: &[String]) {
        let mut bytes = vec![];
        for value in values {
            put_text(&mut bytes, value);
        }
        self.array(key, TEXT, values.len(), &bytes);
    }

    pub fn integers(&mut self, key: &str, values: &[i32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len(), &bytes);
    }

    fn array(&mut self, key: &str, kind: u32, length: usize, values: &[u8]) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((length as u64).to_le_bytes());
        bytes.extend(values);
        self.entry(key, 9, &bytes);
    }

    /// Announces a tensor. Its dimensions are whole blocks and fill whole alignments.
    pub fn tensor(&mut self, name: &str, kind: Kind, dimensions: &[u64]) {
        put_text(&mut self.tensors, name);
        self.tensors.extend((dimensions.len() as u32).to_le_bytes());
        self.tensors.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
        self.tensors.extend(kind.number().to_le_bytes());
        self.tensors.extend(self.offset.to_le_bytes());
        self.tensor_count += 1;
        self.offset += kind.bytes(dimensions.iter().product());
        assert!(
            self.offset.is_multiple_of(ALIGNMENT),
            "{name} {dimensions:?} would need padding, which is not written"
        );
    }

    /// Writes it, and padding up to where the first tensor begins.
    pub fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(self.tensor_count.to_le_bytes());
        bytes.extend(self.entry_count.to_le_bytes());
        bytes.extend(&self.entries);
        bytes.extend(&self.tensors);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        to.write_all(&bytes)
    }
}

const TEXT: u32 = 8;

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}
