//! The machine's limits, as the kernels' own benches measure them (`crates/kernels-cpu/benches/support/ceilings.rs`).

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// In units of 10⁹ a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// f32 operations of one core's multiply-adds.
    pub f32_gflops: f64,
    /// Operations of one core's byte dot products, where it has them.
    pub int8_gops: Option<f64>,
    /// Bytes that all threads read together, sustained, at best.
    pub read_gbs: f64,
    /// The same in the median.
    pub read_median_gbs: f64,
}

impl Ceilings {
    pub fn measure(threads: usize) -> Result<Self> {
        let mut cargo = command::cargo();
        cargo.args(["bench", "--quiet", "--package", "vllm-kernels-cpu", "--bench", "ceilings", "--"]);
        Self::read(&command::output(cargo.args(["--json", "--threads", &threads.to_string()]))?)
    }

    fn read(json: &str) -> Result<Self> {
        let found: Value =
            serde_json::from_str(json).context("the bench of ceilings wrote something that is not JSON")?;
        let figure =
            |name: &str| found[name].as_f64().with_context(|| format!("the bench of ceilings wrote no {name}"));
        Ok(Self {
            f32_gflops: figure("f32_gflops")?,
            int8_gops: found["int8_gops"].as_f64(),
            read_gbs: figure("read_gbs")?,
            read_median_gbs: figure("read_median_gbs")?,
        })
    }

    /// What either reached: others can only have taken something away.
    pub fn best(self, other: Self) -> Self {
        Self {
            f32_gflops: self.f32_gflops.max(other.f32_gflops),
            int8_gops: self.int8_gops.zip(other.int8_gops).map(|(a, b)| a.max(b)),
            read_gbs: self.read_gbs.max(other.read_gbs),
            read_median_gbs: self.read_median_gbs.max(other.read_median_gbs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_two_is_what_either_reached() {
        let one = r#"{"threads":2,"f32_gflops":117.0,"bf16_gflops":null,"int8_gops":460.0,"read_gbs":30.5,"read_median_gbs":29.0}"#;
        let one = Ceilings::read(one).unwrap();
        let other = Ceilings { f32_gflops: 90.0, int8_gops: Some(470.0), read_gbs: 36.0, read_median_gbs: 20.0 };
        let best = Ceilings { f32_gflops: 117.0, int8_gops: Some(470.0), read_gbs: 36.0, read_median_gbs: 29.0 };
        assert_eq!(one.best(other), best);
        assert!(Ceilings::read(r#"{"f32_gflops":117.0}"#).is_err());
    }
}
