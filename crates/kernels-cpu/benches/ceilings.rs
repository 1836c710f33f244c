//! The machine's limits alone: `cargo bench -p vllm-kernels-cpu --bench ceilings -- [--threads N] [--json]`.

#[path = "support/ceilings.rs"]
mod ceilings;

use ceilings::Ceilings;
use vllm_kernels_cpu::Pool;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let value = args.iter().position(|arg| arg == "--threads").and_then(|at| args.get(at + 1)?.parse().ok());
    let threads = value.unwrap_or_else(|| Pool::default().threads()).max(1);
    let found = Ceilings::measure(threads);
    let giga = |value: Option<f64>| value.map_or("null".to_owned(), |value| format!("{:.2}", value / 1e9));
    if args.iter().any(|arg| arg == "--json") {
        println!(
            r#"{{"threads":{threads},"f32_gflops":{},"bf16_gflops":{},"int8_gops":{},"read_gbs":{},"read_median_gbs":{},"read_burst_gbs":{}}}"#,
            giga(Some(found.f32_flops)),
            giga(found.bf16_flops),
            giga(found.int8_ops),
            giga(Some(found.read)),
            giga(Some(found.read_median)),
            giga(Some(found.read_burst)),
        );
    } else {
        println!("{found}");
    }
}
