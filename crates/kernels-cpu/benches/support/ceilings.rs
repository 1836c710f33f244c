//! What the machine can do at most: arithmetic of a core and reading of memory, measured where and when the kernels are.
//!
//! Arithmetic is sixteen independent chains of one instruction on registers, in runs of some 100 µs of which the best counts: that is
//! the core undisturbed, at the clock it has right now. Reading is summing a buffer on huge pages that no cache holds, all threads at
//! once, gigabytes without a break, as decoding does. The best of these runs is the ceiling; the median beside it says how much others
//! used the machine meanwhile, and the best short burst what may be had for a moment: virtual machines have shown bursts of half as much
//! again as they sustain.

use std::{
    fmt,
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use memmap2::MmapMut;

/// Independent chains: more than any core has of latency times units.
const CHAINS: usize = 16;
/// Links of each chain in a run.
const LINKS: usize = 1 << 13;
const RUNS: usize = 200;
/// Far beyond any cache that one machine's share of a processor has.
const BUFFER: usize = 256 << 20;
/// How often a sustained run reads it, and how many runs there are.
const SUSTAINED: usize = 16;
const SUSTAINED_RUNS: usize = 5;
/// What a burst reads of it, and how many there are.
const BURST: usize = 64 << 20;
const BURSTS: usize = 20;
/// What one iteration of a reader takes from each of its streams.
const LINE: usize = 256;
/// Places at which one thread reads at the same time: more than one keeps several of a core's prefetchers busy.
const STREAMS: [usize; 3] = [1, 2, 4];

/// The machine's limits.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Threads that read, and cores that [`Ceilings::all`] counts.
    pub threads: usize,
    /// f32 multiply-adds of one core, two operations each, a second.
    pub f32_flops: f64,
    /// bf16 dot products of one core, where it has them.
    pub bf16_flops: Option<f64>,
    /// Byte dot products of one core, where it has them (`vpdpbusd`).
    pub int8_ops: Option<f64>,
    /// Bytes a second that all threads read together, sustained, at best.
    pub read: f64,
    /// The same in the median.
    pub read_median: f64,
    /// The same of the best short burst.
    pub read_burst: f64,
}

impl Ceilings {
    /// Measures; takes about three seconds.
    pub fn measure(threads: usize) -> Self {
        let [read, read_median, read_burst] = read(threads);
        Self {
            threads,
            f32_flops: arithmetic::f32_fma(),
            bf16_flops: arithmetic::bf16_dot(),
            int8_ops: arithmetic::int8_dot(),
            read,
            read_median,
            read_burst,
        }
    }
}

/// Operations a second of `run`, which does `operations` of them; the best of many.
fn best(operations: usize, run: impl Fn()) -> f64 {
    let fastest = (0..RUNS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    operations as f64 / fastest.min().unwrap_or(Duration::MAX).as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
mod arithmetic {
    use std::{arch::x86_64::*, hint::black_box};

    use super::{CHAINS, LINKS, best};

    /// `CHAINS` chains of `$link(acc, a, b)` in a function with the features `$features`.
    macro_rules! chains {
        ($name:ident, $features:literal, $init:expr, $a:expr, $b:expr, $link:expr) => {
            #[target_feature(enable = $features)]
            fn $name() {
                let (a, b) = (black_box($a), black_box($b));
                let mut chains = [black_box($init); CHAINS];
                for _ in 0..LINKS {
                    for chain in &mut chains {
                        *chain = $link(*chain, a, b);
                    }
                }
                black_box(chains);
            }
        };
    }

    chains!(fma512, "avx512f", _mm512_setzero_ps(), _mm512_set1_ps(0.5), _mm512_set1_ps(0.25), |c, a, b| {
        _mm512_fmadd_ps(a, b, c)
    });
    chains!(fma256, "avx2,fma", _mm256_setzero_ps(), _mm256_set1_ps(0.5), _mm256_set1_ps(0.25), |c, a, b| {
        _mm256_fmadd_ps(a, b, c)
    });
    chains!(
        int512,
        "avx512f,avx512vnni",
        _mm512_setzero_si512(),
        _mm512_set1_epi8(3),
        _mm512_set1_epi8(5),
        |c, a, b| { _mm512_dpbusd_epi32(c, a, b) }
    );
    chains!(
        bf512,
        "avx512f,avx512bf16",
        _mm512_setzero_ps(),
        _mm512_cvtneps_pbh_pair(0.5),
        _mm512_cvtneps_pbh_pair(0.25),
        |c, a, b| _mm512_dpbf16_ps(c, a, b)
    );

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn _mm512_cvtneps_pbh_pair(value: f32) -> __m512bh {
        _mm512_cvtne2ps_pbh(_mm512_set1_ps(value), _mm512_set1_ps(value))
    }

    pub fn f32_fma() -> f64 {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            best(2 * 16 * CHAINS * LINKS, || unsafe { fma512() })
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has them.
            best(2 * 8 * CHAINS * LINKS, || unsafe { fma256() })
        } else {
            super::portable_fma()
        }
    }

    pub fn bf16_dot() -> Option<f64> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        // SAFETY: the processor has them.
        has.then(|| best(2 * 32 * CHAINS * LINKS, || unsafe { bf512() }))
    }

    pub fn int8_dot() -> Option<f64> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        // SAFETY: the processor has them.
        has.then(|| best(2 * 64 * CHAINS * LINKS, || unsafe { int512() }))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arithmetic {
    pub fn f32_fma() -> f64 {
        super::portable_fma()
    }

    pub fn bf16_dot() -> Option<f64> {
        None
    }

    pub fn int8_dot() -> Option<f64> {
        None
    }
}

/// Multiply-adds as the compiler's baseline has them: on Arm that is NEON.
fn portable_fma() -> f64 {
    const LANES: usize = 4;
    let (a, b) = (black_box([0.5f32; LANES]), black_box([0.25f32; LANES]));
    best(2 * LANES * CHAINS * LINKS, || {
        let mut chains = [black_box([0f32; LANES]); CHAINS];
        for _ in 0..LINKS {
            for chain in &mut chains {
                for lane in 0..LANES {
                    chain[lane] = a[lane].mul_add(b[lane], chain[lane]);
                }
            }
        }
        black_box(chains);
    })
}

/// Bytes a second that all threads read together, by the number of streams that is best: sustained, best and median; and the best burst.
fn read(threads: usize) -> [f64; 3] {
    let Ok(mut buffer) = MmapMut::map_anon(BUFFER) else { return [f64::NAN; 3] };
    // With pages of 4 KiB, looking up addresses would be part of what is measured.
    #[cfg(target_os = "linux")]
    let _ = buffer.advise(memmap2::Advice::HugePage);
    buffer.fill(1);
    let rates = STREAMS.map(|streams| {
        let mut sustained: Vec<f64> = (0..SUSTAINED_RUNS).map(|_| rate(&buffer, threads, streams, SUSTAINED)).collect();
        sustained.sort_by(f64::total_cmp);
        // The parts in turn, so that each has long left the caches.
        let bursts = buffer.chunks(BURST).cycle().take(BURSTS).map(|part| rate(part, threads, streams, 1));
        [sustained[SUSTAINED_RUNS - 1], sustained[SUSTAINED_RUNS / 2], bursts.fold(0.0, f64::max)]
    });
    rates.into_iter().max_by(|a, b| a[0].total_cmp(&b[0])).expect("there are streams")
}

/// Bytes a second at which `threads` threads read `bytes`, each its part `rounds` times.
fn rate(bytes: &[u8], threads: usize, streams: usize, rounds: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let part = (bytes.len() / threads).next_multiple_of(LINE);
    // Each thread says when it began and ended: the time between counts even if nobody schedules it, coming late to the start does not.
    let timed = &|part: &[u8]| {
        barrier.wait();
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(sum(black_box(part), streams));
        }
        (start, Instant::now())
    };
    let times: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let readers: Vec<_> = bytes.chunks(part).map(|part| scope.spawn(move || timed(part))).collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    let start = times.iter().map(|(start, _)| start).min().expect("there are readers");
    let end = times.iter().map(|(_, end)| end).max().expect("there are readers");
    (bytes.len() * rounds) as f64 / (*end - *start).as_secs_f64()
}

/// The sum of the buffer's words: nothing cheaper reads every byte.
fn sum(bytes: &[u8], streams: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn wide(bytes: &[u8], streams: usize) -> u64 {
            words(bytes, streams)
        }
        #[target_feature(enable = "avx2")]
        fn narrow(bytes: &[u8], streams: usize) -> u64 {
            words(bytes, streams)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            return unsafe { wide(bytes, streams) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { narrow(bytes, streams) };
        }
    }
    words(bytes, streams)
}

/// Reads `streams` equal parts side by side.
#[inline(always)]
fn words(bytes: &[u8], streams: usize) -> u64 {
    let (lines, _) = bytes.as_chunks::<LINE>();
    let part = lines.len() / streams;
    let mut sums = [0u64; LINE / 8];
    for i in 0..part {
        for stream in 0..streams {
            let (words, _) = lines[stream * part + i].as_chunks::<8>();
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
            }
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let giga = |value: f64| format!("{:.0}", value / 1e9);
        write!(f, "a core: {} GFLOP/s of f32 multiply-adds", giga(self.f32_flops))?;
        if let Some(flops) = self.bf16_flops {
            write!(f, ", {} GFLOP/s of bf16 dot products", giga(flops))?;
        }
        if let Some(ops) = self.int8_ops {
            write!(f, ", {} Gop/s of byte dot products", giga(ops))?;
        }
        let [read, median, burst] = [self.read, self.read_median, self.read_burst].map(|rate| rate / 1e9);
        let threads = self.threads;
        write!(
            f,
            "; memory, read by {threads} threads: {read:.1} GB/s at best, {median:.1} in the median, {burst:.1} in bursts"
        )
    }
}
