//! Keys and values of one layer and one sequence, in one piece.

use mlx_rs::{
    Dtype,
    ops::{
        concatenate,
        indexing::{TryIndexMutOp, TryIndexOp},
        zeros_dtype,
    },
};
use vllm_platform::KvDtype;

use crate::{Error, Result, Tensor, batch::dim, model::LayerSpec};

/// Tokens an extent grows by.
const STEP: usize = 256;
/// Tokens before its window that an extent keeps, so that as many of its last tokens can be cut off again.
pub(super) const SLACK: usize = 256;

/// What all extents of a layer have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExtentSpec {
    pub layer: LayerSpec,
    pub dtype: KvDtype,
    /// Of a sequence, in tokens.
    pub max_len: usize,
}

impl ExtentSpec {
    /// Whether extents forget what lies far before the window.
    pub fn forgets(&self) -> bool {
        self.layer.window.is_some_and(|window| window + SLACK < self.max_len)
    }

    /// Most tokens that an extent has room for if its sequence comes in chunks of at most `chunk`.
    pub fn most_tokens(&self, chunk: usize) -> usize {
        let window = self.layer.window.filter(|_| self.forgets());
        window.map_or(self.max_len, |window| self.max_len.min(window + SLACK + chunk)).next_multiple_of(STEP)
    }

    /// Bytes of one token's keys and values.
    pub fn token_bytes(&self) -> usize {
        2 * self.plane_bytes(1)
    }

    /// Bytes of the keys, or of the values, of `tokens` tokens.
    fn plane_bytes(&self, tokens: usize) -> usize {
        tokens * self.layer.kv_heads * self.layer.head_dim * self.dtype.size()
    }

    /// The first position that the token at `position` sees.
    pub fn first_seen(&self, position: usize) -> usize {
        self.layer.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The first position that an extent keeps of a sequence of `tokens` tokens.
    fn first_kept(&self, tokens: usize) -> usize {
        if self.forgets() { self.first_seen(tokens).saturating_sub(SLACK) } else { 0 }
    }

    fn dtype(&self) -> Dtype {
        match self.dtype {
            KvDtype::F32 => Dtype::Float32,
            KvDtype::F16 => Dtype::Float16,
            KvDtype::Bf16 => Dtype::Bfloat16,
            KvDtype::Int8 => unreachable!("extents hold numbers as they are computed"),
        }
    }

    /// `rows` [1, kv_heads, n, head_dim], if there are any, followed by zeros: `capacity` tokens in all.
    fn padded(&self, rows: Option<Tensor>, capacity: usize) -> Result<Tensor> {
        let held = rows.as_ref().map_or(0, |rows| rows.dim(2));
        let shape = [1, dim(self.layer.kv_heads), dim(capacity) - held, dim(self.layer.head_dim)];
        let zeros = zeros_dtype(&shape, self.dtype())?;
        Ok(match rows {
            Some(rows) => concatenate(&[rows, zeros], 2)?,
            None => zeros,
        })
    }
}

/// Keys and values of positions `first..end`, each [1, kv_heads, capacity, head_dim] with room for more.
pub(super) struct Extent {
    spec: ExtentSpec,
    pub keys: Tensor,
    pub values: Tensor,
    pub first: usize,
    pub end: usize,
}

impl Extent {
    /// Room for the first `tokens` tokens of a sequence.
    pub fn new(spec: ExtentSpec, tokens: usize) -> Result<Self> {
        let capacity = tokens.next_multiple_of(STEP);
        let (keys, values) = (spec.padded(None, capacity)?, spec.padded(None, capacity)?);
        Ok(Self { spec, keys, values, first: 0, end: 0 })
    }

    /// That the token at `position` can be computed from what is held.
    pub fn check(&self, position: usize) -> Result<()> {
        if position > self.end {
            return Err(Error::Plan(format!("position {position} was to follow the {} tokens of its block", self.end)));
        }
        let seen = self.spec.first_seen(position);
        if seen < self.first {
            let first = self.first;
            return Err(Error::Plan(format!(
                "position {position} sees {seen}, its block kept what is from {first} on"
            )));
        }
        Ok(())
    }

    /// Puts `k` and `v` [1, kv_heads, n, head_dim] at positions from `start` on, whatever was there before.
    pub fn write(&mut self, start: usize, k: Tensor, v: Tensor) -> Result<()> {
        let end = start + usize::try_from(k.dim(2)).unwrap_or(0);
        let capacity = usize::try_from(self.keys.dim(2)).unwrap_or(0);
        if end > self.first + capacity {
            let first = self.first.max(self.spec.first_kept(start));
            let capacity = (end - first).next_multiple_of(STEP);
            (self.keys, self.values) = self.moved(first, start, capacity)?;
            self.first = first;
        }
        let at = dim(start - self.first)..dim(end - self.first);
        self.keys.try_index_mut((.., .., at.clone(), ..), k)?;
        self.values.try_index_mut((.., .., at, ..), v)?;
        self.end = end;
        Ok(())
    }

    /// Keys and values of positions from `first` on.
    pub fn tail(&self, first: usize) -> Result<(Tensor, Tensor)> {
        self.rows(first, self.end)
    }

    /// The sequence's first `tokens` tokens in memory of its own, so that neither extent keeps the other's alive.
    /// Part of the graph until evaluated.
    pub fn cut(&self, tokens: usize) -> Result<Self> {
        self.check(tokens)?;
        let first = self.first.max(self.spec.first_kept(tokens));
        let (keys, values) = self.moved(first, tokens, (tokens - first).next_multiple_of(STEP))?;
        Ok(Self { spec: self.spec, keys, values, first, end: tokens })
    }

    /// The sequence's first `tokens` tokens as bytes: the keys that are kept of that many, `[kv_head, token, dim]`, then
    /// the values likewise.
    pub fn export(&self, tokens: usize, out: &mut Vec<u8>) -> Result<()> {
        self.check(tokens)?;
        let first = self.spec.first_kept(tokens);
        if first < self.first {
            return Err(Error::Plan(format!("position {first} was forgotten, {} is the first kept", self.first)));
        }
        let (keys, values) = self.rows(first, tokens)?;
        for rows in [keys, values] {
            let bytes = rows.contiguous()?.view_dtype(Dtype::Uint8)?;
            bytes.eval()?;
            out.extend_from_slice(bytes.try_as_slice().map_err(|error| Error::Plan(format!("export: {error}")))?);
        }
        Ok(())
    }

    /// Takes what [`Self::export`] wrote of `tokens` tokens from the front of `bytes`; `None` if they are too few or
    /// don't suit.
    pub fn import(spec: ExtentSpec, tokens: usize, bytes: &mut &[u8]) -> Result<Option<Self>> {
        let first = spec.first_kept(tokens);
        let plane = spec.plane_bytes(tokens - first);
        let Some((planes, rest)) = bytes.split_at_checked(2 * plane) else { return Ok(None) };
        *bytes = rest;
        let (keys, values) = planes.split_at(plane);
        let width = spec.layer.head_dim * spec.dtype.size();
        let shape = [1, dim(spec.layer.kv_heads), dim(tokens - first), dim(width)];
        let padded = |bytes: &[u8]| {
            let rows = match bytes {
                [] => None,
                bytes => Some(Tensor::from_slice(bytes, &shape).view_dtype(spec.dtype())?),
            };
            spec.padded(rows, (tokens - first).next_multiple_of(STEP))
        };
        Ok(Some(Self { spec, keys: padded(keys)?, values: padded(values)?, first, end: tokens }))
    }

    /// Keys and values of positions `first..end` at the front of arrays of `capacity` tokens.
    fn moved(&self, first: usize, end: usize, capacity: usize) -> Result<(Tensor, Tensor)> {
        if first == end {
            return Ok((self.spec.padded(None, capacity)?, self.spec.padded(None, capacity)?));
        }
        let (keys, values) = self.rows(first, end)?;
        Ok((self.spec.padded(Some(keys), capacity)?, self.spec.padded(Some(values), capacity)?))
    }

    fn rows(&self, first: usize, end: usize) -> Result<(Tensor, Tensor)> {
        let at = dim(first - self.first)..dim(end - self.first);
        Ok((self.keys.try_index((.., .., at.clone(), ..))?, self.values.try_index((.., .., at, ..))?))
    }
}
