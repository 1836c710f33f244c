//! What the kernels' benches share: a kernel is one line, and its figures stand beside what the machine can do at most.
//!
//! ```text
//! let mut suite = Suite::new("matmul");
//! suite.bench("quantized", "576x576 4 bits, m=1", Work::int8(flops, bytes), |i| quantized_matmul(&pool, &x, &copies[i % n], &mut y));
//! suite.finish();
//! ```
//!
//! Criterion prints its estimates as always; the table at the end has the best of many short samples of each kernel, because others can only
//! slow it down, and lands in `target/criterion/summary.md` with those of the other benches. Filters (`cargo bench … -- decode`) work.

pub mod ceilings;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use vllm_kernels_cpu::Pool;

use ceilings::Ceilings;

/// Beyond any cache: copies of a matrix that a decode step reads once, so that each is read from memory, as there.
const COLD: usize = 192 << 20;

/// A sample of ours takes so long at least, so that looking at the clock does not count.
const SAMPLE: Duration = Duration::from_micros(20);

/// What one call of a kernel does.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    flops: u64,
    bytes: u64,
    unit: Unit,
}

/// What the arithmetic is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    F32,
    Bf16,
    Int8,
    /// Nothing: what counts are the bytes.
    Memory,
}

#[allow(dead_code, reason = "no bench uses all of them")]
impl Work {
    /// Arithmetic of f32 multiply-adds, two operations each, that reads and writes so many bytes.
    pub fn f32(flops: usize, bytes: usize) -> Self {
        Self { flops: flops as u64, bytes: bytes as u64, unit: Unit::F32 }
    }

    /// Arithmetic of bf16 dot products.
    pub fn bf16(flops: usize, bytes: usize) -> Self {
        Self { unit: Unit::Bf16, ..Self::f32(flops, bytes) }
    }

    /// Arithmetic of byte dot products. Operations are those of the product; a kernel that splits activations into two bytes does twice
    /// as many, and reaches half the ceiling at most.
    pub fn int8(ops: usize, bytes: usize) -> Self {
        Self { unit: Unit::Int8, ..Self::f32(ops, bytes) }
    }

    /// Reads and writes so many bytes; arithmetic is not what limits it.
    pub fn memory(bytes: usize) -> Self {
        Self { flops: 0, bytes: bytes as u64, unit: Unit::Memory }
    }
}

struct Row {
    group: String,
    kernel: String,
    work: Work,
    best: Duration,
    median: Duration,
}

/// The kernels of one bench.
pub struct Suite {
    name: &'static str,
    criterion: Criterion,
    /// None in a run that only tests whether everything runs.
    ceilings: Option<Ceilings>,
    rows: Vec<Row>,
    pub pool: Pool,
}

impl Suite {
    /// Measures the machine's limits and prints them.
    pub fn new(name: &'static str) -> Self {
        let pool = Pool::default();
        let measures = !env::args().any(|arg| arg == "--test" || arg == "--list");
        let ceilings = measures.then(|| Ceilings::measure(pool.threads()));
        if let Some(ceilings) = &ceilings {
            println!("{} threads on {}; {ceilings}\n", pool.threads(), pool.isa());
        }
        // Short: the best sample is what counts, and a bench of fifty kernels should not take longer than people wait.
        let criterion = Criterion::default()
            .without_plots()
            .sample_size(15)
            .nresamples(2000)
            .warm_up_time(Duration::from_millis(150))
            .measurement_time(Duration::from_millis(600))
            .configure_from_args();
        Self { name, criterion, ceilings, rows: vec![], pool }
    }

    /// Measures `run`, which is given the number of its call.
    pub fn bench(&mut self, group: &str, kernel: &str, work: Work, mut run: impl FnMut(&Pool, usize)) {
        let mut samples: Vec<Duration> = vec![];
        let mut calls = 0;
        // How many calls a sample of ours has: criterion's are so long that none goes undisturbed on a busy machine.
        let mut together = 1;
        let throughput =
            if work.unit == Unit::Memory { Throughput::Bytes(work.bytes) } else { Throughput::Elements(work.flops) };
        let mut criterion_group = self.criterion.benchmark_group(group);
        criterion_group.throughput(throughput);
        criterion_group.bench_function(kernel, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut took = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let timed = together.min(left);
                    let start = Instant::now();
                    for _ in 0..timed {
                        run(&self.pool, calls);
                        calls += 1;
                    }
                    let elapsed = start.elapsed();
                    took += elapsed;
                    left -= timed;
                    if elapsed < SAMPLE {
                        together *= 2;
                    } else {
                        samples.push(elapsed.div_f64(timed as f64));
                    }
                }
                took
            });
        });
        criterion_group.finish();
        samples.sort();
        // A filter may have left it out.
        if let Some(&best) = samples.first() {
            let (group, kernel) = (group.to_owned(), kernel.to_owned());
            self.rows.push(Row { group, kernel, work, best, median: samples[samples.len() / 2] });
        }
    }

    /// Prints the table and keeps it.
    pub fn finish(self) {
        self.criterion.final_summary();
        let Some(ceilings) = self.ceilings else { return };
        let mut text =
            format!("## {}\n\n{} threads on {}; {ceilings}\n\n", self.name, self.pool.threads(), self.pool.isa());
        text += "| kernel | best | median | GFLOP/s | of the cores' | GB/s | of memory's |\n|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            text += &row.line(&ceilings, self.pool.threads());
        }
        println!("\n{text}");
        if let Err(error) = keep(self.name, &text) {
            eprintln!("the summary was not written: {error}");
        }
    }
}

impl Row {
    fn line(&self, ceilings: &Ceilings, threads: usize) -> String {
        let seconds = self.best.as_secs_f64();
        let cores = threads as f64;
        let limit = match self.work.unit {
            Unit::F32 => Some(cores * ceilings.f32_flops),
            Unit::Bf16 => ceilings.bf16_flops.map(|one| cores * one),
            Unit::Int8 => ceilings.int8_ops.map(|one| cores * one),
            Unit::Memory => None,
        };
        let flops = self.work.flops as f64 / seconds;
        let bytes = self.work.bytes as f64 / seconds;
        let unit = match self.work.unit {
            Unit::F32 => "f32",
            Unit::Bf16 => "bf16",
            Unit::Int8 => "int8",
            Unit::Memory => "",
        };
        let arithmetic = if self.work.unit == Unit::Memory { "".into() } else { format!("{:.0}", flops / 1e9) };
        let share = limit.map_or("".into(), |limit| format!("{:.0} % {unit}", 100.0 * flops / limit));
        format!(
            "| {} {} | {} | {} | {arithmetic} | {share} | {:.1} | {:.0} % |\n",
            self.group,
            self.kernel,
            shown(self.best),
            shown(self.median),
            bytes / 1e9,
            100.0 * bytes / ceilings.read,
        )
    }
}

fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1000.0 { format!("{micros:.2} µs") } else { format!("{:.2} ms", micros / 1e3) }
}

/// Writes the bench's own table, and the file of all of them.
fn keep(name: &str, text: &str) -> std::io::Result<()> {
    let folder = target().join("criterion");
    let own = folder.join("summary");
    fs::create_dir_all(&own)?;
    fs::write(own.join(format!("{name}.md")), text)?;
    let mut parts: Vec<PathBuf> =
        fs::read_dir(&own)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    parts.sort();
    let all = parts.iter().map(fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
    fs::write(folder.join("summary.md"), all.join("\n"))
}

/// Cargo's target folder: benches lie in `target/release/deps`.
fn target() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    program.ancestors().nth(3).unwrap_or(Path::new("target")).to_path_buf()
}

/// Numbers from −1 to 1.
#[allow(dead_code, reason = "not every bench needs them")]
pub fn numbers(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// How many copies of so many bytes no cache holds together: one for each call in turn, so that each is read from memory.
#[allow(dead_code, reason = "not every bench needs it")]
pub fn cold_copies(bytes: usize) -> usize {
    COLD.div_ceil(bytes.max(1)).max(2)
}
