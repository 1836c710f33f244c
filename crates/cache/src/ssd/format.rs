//! A block's file, little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic |
//! | 4 | version |
//! | 4 | length of the header, from the magic to its checksum |
//! | 16, 16 | hash, parent's hash |
//! | 1 | dtype: 0 f32, 1 f16, 2 bf16, 3 int8 |
//! | 1 + n | fingerprint: length, characters |
//! | 4 + 4n | tokens: count, tokens |
//! | 4 + 40n | version 2 only, media among them: count; for each the first token (8), tokens (8), key (16), the first token's vector (8) |
//! | 2 + 21n | groups: count; for each the encoding (0 absent, 1 as it is, 2 in 8 bits), raw length (8), stored length (8), checksum of what is stored (4) |
//! | 4 | checksum of the header |
//! | | what is stored of each group, one after the other, up to the end of the file |
//!
//! A block without media is written as version 1, which is all that earlier programs know: they and this one read each
//! other's.
//!
//! Checksums are CRC-32: a changed byte, or any change within four bytes in a row, is found with certainty, anything
//! else but for one case in 2³².

use std::{
    borrow::Cow,
    io::{self, Read},
};

use vllm_platform::{ContentHash, KvDtype, TokenId};

use super::{entry::SsdEntry, quant};
use crate::{BlockHash, MediaMark};

const MAGIC: [u8; 8] = *b"\x89KVblk\r\n";
/// Of a block of text.
const TEXT: u32 = 1;
/// Of a block with media.
const MEDIA: u32 = 2;
/// Magic, version and length.
const START: usize = 16;
/// Longest header that is believed: over a million tokens.
const MAX_HEADER: u64 = 8 << 20;

/// What all files of a folder have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) fingerprint: String,
    pub(super) dtype: KvDtype,
}

/// Why a file gave nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not what was written.
    Corrupt(&'static str),
    /// The system refused.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Absent,
    Raw,
    Int8,
}

/// What is stored of one group.
#[derive(Debug, Clone, Copy)]
struct Stored {
    encoding: Encoding,
    raw_len: u64,
    stored_len: u64,
    checksum: u32,
}

/// The first part of a file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) entry: SsdEntry,
    groups: Vec<Stored>,
}

impl Header {
    /// For each group, whether it is there.
    pub(super) fn present(&self) -> Vec<bool> {
        self.groups.iter().map(|group| group.encoding != Encoding::Absent).collect()
    }
}

/// A file's content, ready to be written.
pub(super) struct Encoded<'a> {
    pub(super) header: Vec<u8>,
    pub(super) payloads: Vec<Cow<'a, [u8]>>,
}

impl Encoded<'_> {
    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        (self.header.len() + self.payloads.iter().map(|payload| payload.len()).sum::<usize>()) as u64
    }
}

/// The file of a block.
pub(super) fn encode<'a>(
    identity: &Identity,
    entry: &SsdEntry,
    groups: &'a [Option<Vec<u8>>],
    quantize: bool,
) -> Encoded<'a> {
    let mut stored = Vec::with_capacity(groups.len());
    let mut payloads = vec![];
    for group in groups {
        let Some(raw) = group else {
            stored.push(Stored { encoding: Encoding::Absent, raw_len: 0, stored_len: 0, checksum: 0 });
            continue;
        };
        let quantized = if quantize { quant::encode(raw, identity.dtype) } else { None };
        let (encoding, payload) = match quantized {
            Some(bytes) => (Encoding::Int8, Cow::Owned(bytes)),
            None => (Encoding::Raw, Cow::Borrowed(raw.as_slice())),
        };
        let checksum = crc32fast::hash(&payload);
        stored.push(Stored { encoding, raw_len: raw.len() as u64, stored_len: payload.len() as u64, checksum });
        payloads.push(payload);
    }
    Encoded { header: encode_header(identity, entry, &stored), payloads }
}

fn encode_header(identity: &Identity, entry: &SsdEntry, groups: &[Stored]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 + 4 * entry.tokens.len());
    bytes.extend(MAGIC);
    let version = if entry.media.is_empty() { TEXT } else { MEDIA };
    bytes.extend(version.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(entry.hash.0);
    bytes.extend(entry.parent.0);
    bytes.push(dtype_code(identity.dtype));
    bytes.push(identity.fingerprint.len() as u8);
    bytes.extend(identity.fingerprint.as_bytes());
    bytes.extend((entry.tokens.len() as u32).to_le_bytes());
    for token in &entry.tokens {
        bytes.extend(token.to_le_bytes());
    }
    if version == MEDIA {
        bytes.extend((entry.media.len() as u32).to_le_bytes());
        for MediaMark { start, len, key, first } in &entry.media {
            bytes.extend((*start as u64).to_le_bytes());
            bytes.extend((*len as u64).to_le_bytes());
            bytes.extend(key.0);
            bytes.extend((*first as u64).to_le_bytes());
        }
    }
    bytes.extend((groups.len() as u16).to_le_bytes());
    for group in groups {
        bytes.push(match group.encoding {
            Encoding::Absent => 0,
            Encoding::Raw => 1,
            Encoding::Int8 => 2,
        });
        bytes.extend(group.raw_len.to_le_bytes());
        bytes.extend(group.stored_len.to_le_bytes());
        bytes.extend(group.checksum.to_le_bytes());
    }
    let len = (bytes.len() + 4) as u32;
    bytes[12..START].copy_from_slice(&len.to_le_bytes());
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// The header of a file of `file_len` bytes that `source` stands at the start of; it stands at the payloads then.
pub(super) fn read_header(source: &mut impl Read, file_len: u64, identity: &Identity) -> Result<Header, Fault> {
    let mut bytes = read_exactly(source, START as u64)?;
    let mut start = Cursor(&bytes);
    if start.array()? != MAGIC {
        return Err(Fault::Corrupt("it does not start like a block"));
    }
    let version = start.u32()?;
    if version != TEXT && version != MEDIA {
        return Err(Fault::Corrupt("it is of another version"));
    }
    let header_len = u64::from(start.u32()?);
    if header_len < (START + 4) as u64 || header_len > MAX_HEADER.min(file_len) {
        return Err(Fault::Corrupt("its header has an impossible length"));
    }
    bytes.append(&mut read_exactly(source, header_len - START as u64)?);
    let (body, checksum) = bytes.split_at(bytes.len() - 4);
    if Cursor(checksum).u32()? != crc32fast::hash(body) {
        return Err(Fault::Corrupt("its header's checksum is wrong"));
    }
    let header = parse(Cursor(&body[START..]), version, identity)?;
    let payloads = header.groups.iter().try_fold(header_len, |sum, group| sum.checked_add(group.stored_len));
    if payloads != Some(file_len) {
        return Err(Fault::Corrupt("it is shorter or longer than its header says"));
    }
    if !header.entry.is_named_right() {
        return Err(Fault::Corrupt("its hash is not that of its content"));
    }
    Ok(header)
}

fn parse(mut body: Cursor<'_>, version: u32, identity: &Identity) -> Result<Header, Fault> {
    let hash = BlockHash(body.array()?);
    let parent = BlockHash(body.array()?);
    let [dtype, fingerprint_len] = body.array()?;
    let fingerprint = body.take(fingerprint_len.into())?;
    if dtype != dtype_code(identity.dtype) || fingerprint != identity.fingerprint.as_bytes() {
        return Err(Fault::Corrupt("it is of another model"));
    }
    let count = body.u32()? as usize;
    let tokens = body.take(count.saturating_mul(size_of::<TokenId>()))?;
    let tokens = tokens.as_chunks().0.iter().map(|token| TokenId::from_le_bytes(*token)).collect();
    let media = if version == MEDIA { parse_media(&mut body)? } else { Vec::new() };
    let count = u16::from_le_bytes(body.array()?);
    let groups = (0..count).map(|_| parse_group(&mut body)).collect::<Result<_, Fault>>()?;
    if !body.0.is_empty() {
        return Err(Fault::Corrupt("its header has an impossible length"));
    }
    Ok(Header { entry: SsdEntry { hash, parent, tokens, media }, groups })
}

fn parse_media(body: &mut Cursor<'_>) -> Result<Vec<MediaMark>, Fault> {
    let count = body.u32()?;
    if count == 0 {
        return Err(Fault::Corrupt("it is a block of text under the version of blocks with media"));
    }
    (0..count).map(|_| parse_mark(body)).collect()
}

fn parse_mark(body: &mut Cursor<'_>) -> Result<MediaMark, Fault> {
    let (start, len) = (body.number()?, body.number()?);
    let mark = MediaMark { start, len, key: ContentHash(body.array()?), first: body.number()? };
    if start.checked_add(len).is_none() || mark.first.checked_add(len).is_none() {
        return Err(Fault::Corrupt("it holds an impossible number"));
    }
    Ok(mark)
}

fn parse_group(body: &mut Cursor<'_>) -> Result<Stored, Fault> {
    let encoding = match body.array()? {
        [0] => Encoding::Absent,
        [1] => Encoding::Raw,
        [2] => Encoding::Int8,
        _ => return Err(Fault::Corrupt("it holds an encoding that is unknown")),
    };
    Ok(Stored {
        encoding,
        raw_len: u64::from_le_bytes(body.array()?),
        stored_len: u64::from_le_bytes(body.array()?),
        checksum: body.u32()?,
    })
}

/// The groups after `header`.
pub(super) fn read_groups(
    source: &mut impl Read,
    header: &Header,
    dtype: KvDtype,
) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    header.groups.iter().map(|group| read_group(source, group, dtype)).collect()
}

fn read_group(source: &mut impl Read, group: &Stored, dtype: KvDtype) -> Result<Option<Vec<u8>>, Fault> {
    if group.encoding == Encoding::Absent {
        return Ok(None);
    }
    let stored = read_exactly(source, group.stored_len)?;
    if crc32fast::hash(&stored) != group.checksum {
        return Err(Fault::Corrupt("the checksum of what it holds is wrong"));
    }
    let raw = if group.encoding == Encoding::Int8 { quant::decode(&stored, dtype) } else { Some(stored) };
    match raw {
        Some(raw) if raw.len() as u64 == group.raw_len => Ok(Some(raw)),
        _ => Err(Fault::Corrupt("what it holds has an impossible length")),
    }
}

/// `len` bytes, which the caller has compared with the length of the file.
fn read_exactly(source: &mut impl Read, len: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(len).map_err(|_| Fault::Corrupt("it is larger than memory"))?)
        .map_err(|_| Fault::Io(io::ErrorKind::OutOfMemory.into()))?;
    source.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(Fault::Corrupt("it ends too early")) }
}

fn dtype_code(dtype: KvDtype) -> u8 {
    match dtype {
        KvDtype::F32 => 0,
        KvDtype::F16 => 1,
        KvDtype::Bf16 => 2,
        KvDtype::Int8 => 3,
    }
}

/// What is left to parse.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Fault::Corrupt("its header ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Fault::Corrupt("its header ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn number(&mut self) -> Result<usize, Fault> {
        let number = u64::from_le_bytes(self.array()?);
        usize::try_from(number).map_err(|_| Fault::Corrupt("it holds an impossible number"))
    }
}

#[cfg(test)]
mod tests;
