//! Paged storage of one layer's keys and values.

use std::{
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use half::{bf16, f16};

mod layout;
mod number;
mod plane;
mod planes;
mod rotation;

pub use number::KvKind;
pub(crate) use {layout::Layout, number::KvNumber, planes::Planes, rotation::rotate};

use crate::Pool;

/// What keys of a block are a whole number of, so that a vector of keys never spans two blocks.
const KEYS: usize = 16;
/// f32 of a cache line, and of the widest vector.
const LINE: usize = 16;

/// The dimensions of a [`KvPool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Blocks in the pool.
    pub blocks: usize,
    /// Tokens of a block: a multiple of 16.
    pub block_size: usize,
    /// Heads of keys, and as many of values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// What a number is stored as.
    pub kind: KvKind,
}

impl KvShape {
    /// Bytes of one block, keys, values and their scales, padding included.
    pub fn block_bytes(&self) -> usize {
        let layout = Layout::new(self);
        let numbers = layout.key_block() + layout.value_block();
        numbers * self.kind.size() + layout.scale_block() * self.kind.scale_size()
    }
}

/// Why a [`KvPool`] cannot be made or a block not be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvPoolError {
    /// The block size does not suit vectors.
    #[error("KV block size {0}: it must be a multiple of {KEYS}, and not 0")]
    BlockSize(usize),
    /// A dimension is 0.
    #[error("KV pool of {kv_heads} heads of {head_dim}: neither may be 0")]
    Empty {
        /// Heads asked for.
        kv_heads: usize,
        /// Numbers of a head asked for.
        head_dim: usize,
    },
    /// The pool would not fit the address space, or the system has no such memory to promise.
    #[error(
        "KV pool of {blocks} blocks of {block_bytes} bytes: the system refuses that much memory; fewer blocks may fit"
    )]
    Memory {
        /// Blocks asked for.
        blocks: usize,
        /// Bytes of one.
        block_bytes: usize,
    },
    /// An exported block of another shape.
    #[error("KV block of {found} bytes: {tokens} tokens of this pool have {wanted}")]
    ExportBytes {
        /// Tokens that it should hold.
        tokens: usize,
        /// Bytes given.
        found: usize,
        /// Bytes of as many tokens of this pool.
        wanted: usize,
    },
}

/// Keys and values of one layer, in blocks of [`KvShape::block_size`] tokens, where slot `s` is token
/// `s % block_size` of block `s / block_size`.
///
/// Keys lie as `[block, head, dim, token]` and values as `[block, head, token, dim]` (rows padded to 16): attention
/// then reads both as whole vectors, along tokens for the scores and along the head for the sum of values. Bytes
/// ([`KvKind::Int8`]) have scales beside them, `[block, head, keys or values, token]`, and their keys are rotated.
///
/// The memory is zero pages that cost nothing until they are written to, so that a pool may be as large as the
/// longest context ever wanted. Shared references suffice for writing: a lock inside lets one writer or any number of
/// readers (attention calls) in at a time. A writer and a reader of the same blocks are thus never unsafe, but which
/// comes first is the caller's to arrange.
pub struct KvPool {
    shape: KvShape,
    storage: RwLock<Storage>,
}

enum Storage {
    F32(Planes<f32>),
    F16(Planes<f16>),
    Bf16(Planes<bf16>),
    Int8(Planes<i8>),
}

/// Calls the same generic code for whichever kind of number a pool holds.
macro_rules! with_planes {
    ($storage:expr, $planes:ident => $body:expr) => {
        match $storage {
            Storage::F32($planes) => $body,
            Storage::F16($planes) => $body,
            Storage::Bf16($planes) => $body,
            Storage::Int8($planes) => $body,
        }
    };
}

/// Calls a closure-like piece of code with the planes of a read-locked pool.
pub(crate) trait WithPlanes {
    /// What it gives back.
    type Output;
    /// The code.
    fn call<T: KvNumber>(self, planes: &Planes<T>) -> Self::Output;
}

impl KvPool {
    /// An empty pool.
    ///
    /// # Errors
    /// If the shape is impossible or the system refuses the memory.
    pub fn new(shape: KvShape) -> Result<Self, KvPoolError> {
        if shape.block_size == 0 || !shape.block_size.is_multiple_of(KEYS) {
            return Err(KvPoolError::BlockSize(shape.block_size));
        }
        if shape.kv_heads == 0 || shape.head_dim == 0 {
            return Err(KvPoolError::Empty { kv_heads: shape.kv_heads, head_dim: shape.head_dim });
        }
        let layout = Layout::new(&shape);
        let storage = match shape.kind {
            KvKind::F32 => Planes::new(shape.blocks, layout).map(Storage::F32),
            KvKind::F16 => Planes::new(shape.blocks, layout).map(Storage::F16),
            KvKind::Bf16 => Planes::new(shape.blocks, layout).map(Storage::Bf16),
            KvKind::Int8 => Planes::new(shape.blocks, layout).map(Storage::Int8),
        };
        let refused = KvPoolError::Memory { blocks: shape.blocks, block_bytes: shape.block_bytes() };
        Ok(Self { shape, storage: RwLock::new(storage.ok_or(refused)?) })
    }

    /// The pool's dimensions.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// See [`KvShape::block_bytes`].
    pub fn block_bytes(&self) -> usize {
        self.shape.block_bytes()
    }

    /// Stores keys and values `[slots.len(), kv_heads, head_dim]`, one token a slot. If a slot comes twice the later
    /// one stays.
    ///
    /// # Panics
    /// If the lengths do not fit together or a slot is beyond the pool.
    pub fn write(&self, pool: &Pool, k: &[f32], v: &[f32], slots: &[u32]) {
        self.check("write", k.len(), v.len(), slots);
        with_planes!(&mut *self.lock_for_writing(), planes => planes.write(pool, k, v, slots));
    }

    /// Reads keys and values `[slots.len(), kv_heads, head_dim]` back.
    ///
    /// # Panics
    /// If the lengths do not fit together or a slot is beyond the pool.
    pub fn read(&self, slots: &[u32], k: &mut [f32], v: &mut [f32]) {
        self.check("read", k.len(), v.len(), slots);
        with_planes!(&*self.lock_for_reading(), planes => planes.read(slots, k, v));
    }

    /// Copies whole blocks, `(from, to)` one after the other: what copy-on-write of a shared block needs.
    ///
    /// # Panics
    /// If a block is beyond the pool.
    pub fn copy_blocks(&self, pairs: &[(u32, u32)]) {
        for &block in pairs.iter().flat_map(|(from, to)| [from, to]) {
            self.check_block("copy_blocks", block);
        }
        let mut storage = self.lock_for_writing();
        for &(from, to) in pairs {
            with_planes!(&mut *storage, planes => planes.copy(from as usize, to as usize));
        }
    }

    /// Bytes of `tokens` exported tokens.
    pub fn export_bytes(&self, tokens: usize) -> usize {
        let KvShape { kv_heads, head_dim, kind, .. } = self.shape;
        2 * tokens * kv_heads * (head_dim * kind.size() + kind.scale_size())
    }

    /// Writes the first `tokens` tokens of block `block` to `out`: what a slower tier keeps.
    ///
    /// First the keys, `[head, dim, token]`, then the values, `[head, token, dim]`, then the scales, if numbers have any,
    /// `[head, keys or values, token]` in f32; all little-endian and without padding.
    /// Only a pool of the same heads and kind of number understands it.
    ///
    /// # Errors
    /// If `out` is not [`KvPool::export_bytes`] long.
    ///
    /// # Panics
    /// If the block is beyond the pool, or has fewer tokens.
    pub fn export_block(&self, block: u32, tokens: usize, out: &mut [u8]) -> Result<(), KvPoolError> {
        self.check_part("export_block", block, tokens, out.len())?;
        with_planes!(&*self.lock_for_reading(), planes => planes.export(block as usize, tokens, out));
        Ok(())
    }

    /// Restores the first `tokens` tokens of block `block` from what [`KvPool::export_block`] wrote of as many. The
    /// block's other tokens stay as they are.
    ///
    /// # Errors
    /// If `bytes` is not [`KvPool::export_bytes`] long.
    ///
    /// # Panics
    /// If the block is beyond the pool, or has fewer tokens.
    pub fn import_block(&self, block: u32, tokens: usize, bytes: &[u8]) -> Result<(), KvPoolError> {
        self.check_part("import_block", block, tokens, bytes.len())?;
        with_planes!(&mut *self.lock_for_writing(), planes => planes.import(block as usize, tokens, bytes));
        Ok(())
    }

    /// Runs `body` on the pool's numbers while nobody writes.
    pub(crate) fn with_planes<F: WithPlanes>(&self, body: F) -> F::Output {
        with_planes!(&*self.lock_for_reading(), planes => body.call(planes))
    }

    fn lock_for_reading(&self) -> RwLockReadGuard<'_, Storage> {
        // A panic while writing leaves numbers, if not the wanted ones: nothing that later calls could trip over.
        self.storage.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_for_writing(&self) -> RwLockWriteGuard<'_, Storage> {
        self.storage.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, call: &str, k: usize, v: usize, slots: &[u32]) {
        let KvShape { blocks, block_size, kv_heads, head_dim, .. } = self.shape;
        let wanted = slots.len() * kv_heads * head_dim;
        assert!(
            k == wanted && v == wanted,
            "KvPool::{call}: {k} numbers of keys and {v} of values for {} tokens of {kv_heads} heads of {head_dim}",
            slots.len()
        );
        if let Some(slot) = slots.iter().find(|&&slot| slot as usize >= blocks * block_size) {
            panic!("KvPool::{call}: slot {slot} of a pool of {blocks} blocks of {block_size}");
        }
    }

    fn check_block(&self, call: &str, block: u32) {
        let blocks = self.shape.blocks;
        assert!((block as usize) < blocks, "KvPool::{call}: block {block} of a pool of {blocks}");
    }

    fn check_part(&self, call: &str, block: u32, tokens: usize, found: usize) -> Result<(), KvPoolError> {
        self.check_block(call, block);
        let size = self.shape.block_size;
        assert!(tokens <= size, "KvPool::{call}: {tokens} tokens of a block of {size}");
        let wanted = self.export_bytes(tokens);
        if found == wanted { Ok(()) } else { Err(KvPoolError::ExportBytes { tokens, found, wanted }) }
    }
}

impl fmt::Debug for KvPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPool").field("shape", &self.shape).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    const SHAPE: KvShape = KvShape { blocks: 9, block_size: 16, kv_heads: 3, head_dim: 40, kind: KvKind::F32 };
    const WIDTH: usize = SHAPE.kv_heads * SHAPE.head_dim;
    const KINDS: [KvKind; 4] = [KvKind::F32, KvKind::F16, KvKind::Bf16, KvKind::Int8];

    fn read(kv: &KvPool, slots: &[u32]) -> (Vec<f32>, Vec<f32>) {
        let width = kv.shape().kv_heads * kv.shape().head_dim;
        let (mut k, mut v) = (vec![f32::NAN; slots.len() * width], vec![f32::NAN; slots.len() * width]);
        kv.read(slots, &mut k, &mut v);
        (k, v)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let slot_cases: [(&str, Vec<u32>); 5] = [
            ("nothing", vec![]),
            ("one", vec![77]),
            ("a run over three blocks", (10..40).collect()),
            ("scattered", vec![143, 0, 16, 15, 99, 100, 101, 3]),
            ("whole pool, many threads", (0..144).rev().collect()),
        ];
        let pool = Pool::new(2);
        for kind in KINDS {
            // Of a number itself; of the greatest that there can be, for values and, rotated in eights, for keys.
            let (own, values, keys) = match kind {
                KvKind::F32 => (0.0, 0.0, 0.0),
                KvKind::F16 => (1.0 / 2048.0, 1e-6, 1e-6),
                KvKind::Bf16 => (1.0 / 256.0, 0.0, 0.0),
                KvKind::Int8 => (0.0, 1.0 / 253.0, 8.0 / 253.0),
            };
            for (name, slots) in &slot_cases {
                let kv = KvPool::new(KvShape { kind, ..SHAPE }).unwrap();
                let (k, v) = (random(slots.len() * WIDTH, 1), random(slots.len() * WIDTH, 2));
                kv.write(&pool, &k, &v, slots);
                let (k2, v2) = read(&kv, slots);
                let keys = k.iter().zip(&k2).map(|pair| (pair, keys));
                for ((wanted, got), all) in keys.chain(v.iter().zip(&v2).map(|pair| (pair, values))) {
                    assert!((wanted - got).abs() <= own * wanted.abs() + all, "{kind:?} {name}: {wanted} {got}");
                }
            }
        }
    }

    #[test]
    fn of_two_writes_to_a_slot_the_later_stays() {
        let kv = KvPool::new(SHAPE).unwrap();
        let (k, v) = (random(3 * WIDTH, 1), random(3 * WIDTH, 2));
        kv.write(&Pool::new(2), &k, &v, &[5, 6, 5]);
        assert_eq!(read(&kv, &[5]), (k[2 * WIDTH..].to_vec(), v[2 * WIDTH..].to_vec()));
    }

    #[test]
    fn copies_and_exports_are_exact() {
        for kind in KINDS {
            let kv = KvPool::new(KvShape { kind, ..SHAPE }).unwrap();
            let slots: Vec<u32> = (32..48).collect();
            kv.write(&Pool::new(1), &random(16 * WIDTH, 1), &random(16 * WIDTH, 2), &slots);
            let original = read(&kv, &slots);
            kv.copy_blocks(&[(2, 7), (7, 0)]);
            let other = KvPool::new(KvShape { kind, blocks: 17, ..SHAPE }).unwrap();
            let nan = vec![f32::NAN; 17 * 16 * WIDTH];
            other.write(&Pool::new(1), &nan, &nan, &(0..17 * 16).collect::<Vec<_>>());
            for tokens in 0..=16 {
                let mut bytes = vec![0; kv.export_bytes(tokens)];
                kv.export_block(0, tokens, &mut bytes).unwrap();
                other.import_block(tokens as u32, tokens, &bytes).unwrap();
                let first = 16 * tokens as u32;
                let there = read(&other, &(first..first + tokens as u32).collect::<Vec<_>>());
                let part = |all: &[f32]| all[..tokens * WIDTH].to_vec();
                assert_eq!(there, (part(&original.0), part(&original.1)), "{kind:?}, {tokens} tokens");
                let rest = read(&other, &(first + tokens as u32..first + 16).collect::<Vec<_>>());
                assert!(rest.0.iter().chain(&rest.1).all(|n| n.is_nan()), "{kind:?}: what follows {tokens} tokens");
            }
            let message = other.import_block(8, 3, &[0; 5]).unwrap_err().to_string();
            assert!(message.contains("5 bytes: 3 tokens of this pool have"), "{message}");
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let cases = [
            ("block of 0", KvShape { block_size: 0, ..SHAPE }, "block size 0: it must be a multiple of 16"),
            ("block of 24", KvShape { block_size: 24, ..SHAPE }, "block size 24: it must be a multiple of 16"),
            ("no heads", KvShape { kv_heads: 0, ..SHAPE }, "0 heads of 40"),
            ("too large", KvShape { blocks: usize::MAX / 64, ..SHAPE }, "fewer blocks may fit"),
        ];
        for (name, shape, wanted) in cases {
            let message = KvPool::new(shape).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(wanted), "{name}: {message}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_pool_that_is_not_written_to_takes_no_memory() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            4096 * statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
        };
        for kind in KINDS {
            let before = resident();
            let kv = KvPool::new(KvShape { blocks: 200_000, kind, ..SHAPE }).unwrap();
            kv.write(&Pool::new(1), &random(WIDTH, 1), &random(WIDTH, 2), &[700_000]);
            let bytes = 200_000 * kv.block_bytes();
            let grown = resident().saturating_sub(before);
            assert!(grown < bytes / 8, "{kind:?}: {grown} bytes resident of {bytes}");
        }
    }

    #[test]
    #[should_panic(expected = "slot 144 of a pool of 9 blocks of 16")]
    fn a_slot_beyond_the_pool_is_refused() {
        let kv = KvPool::new(SHAPE).unwrap();
        kv.write(&Pool::new(1), &[0.0; WIDTH], &[0.0; WIDTH], &[144]);
    }
}
