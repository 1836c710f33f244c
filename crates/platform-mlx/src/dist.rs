//! MLX's transports between processes: its ring over TCP, JACCL over RDMA on Thunderbolt, NCCL.
//!
//! The environment says who takes part, with the variables that `mlx.launch` sets: for the ring `MLX_RANK` and `MLX_HOSTFILE`. A
//! process that dies leaves the others waiting for ever: MLX has no deadline, and a group can't be joined again.

use std::ffi::CStr;

use mlx_rs::{Dtype, Stream, with_stream};
use vllm_platform::{DeviceKind, Link};

use crate::{Error, Result, Tensor, batch::dim, device};

pub use crate::ffi::distributed::{Group, is_available};

/// The transports that MLX has a name for, and the variables that each wants.
const TRANSPORTS: [(&CStr, &[&str]); 3] = [
    (c"ring", &["MLX_RANK", "MLX_HOSTFILE"]),
    (c"jaccl", &["MLX_RANK", "MLX_IBV_DEVICES", "MLX_JACCL_COORDINATOR"]),
    (c"nccl", &["MLX_RANK", "MLX_WORLD_SIZE", "NCCL_HOST_IP", "NCCL_PORT"]),
];

/// A group as the control plane sees it: numbers in f32, out of and into the host's memory.
pub struct MlxLink {
    group: Group,
    stream: Stream,
}

impl MlxLink {
    /// Joins the others. Blocks until all are there.
    ///
    /// # Errors
    /// If there is no such transport here, or MLX can't make out who the others are.
    pub fn open(transport: &str) -> Result<Self> {
        let available = || TRANSPORTS.into_iter().filter(|(name, _)| is_available(name));
        let Some((backend, wanted)) = available().find(|(name, _)| name.to_bytes() == transport.as_bytes()) else {
            let known: Vec<_> = available().map(|(name, _)| name.to_string_lossy()).collect();
            return Err(Error::Option(format!("the MLX here has no {transport}; it has: {}", known.join(", "))));
        };
        if let Some(missing) = wanted.iter().find(|name| std::env::var_os(name).is_none()) {
            let all = wanted.join(", ");
            return Err(Error::Option(format!(
                "{transport}: the environment has no {missing}; who takes part is said by {all}, as mlx.launch sets them"
            )));
        }
        // NCCL's collectives run on the GPU, the others' on the host.
        let kind = if transport == "nccl" { DeviceKind::Cuda } else { DeviceKind::Cpu };
        Ok(Self { group: Group::init(backend)?, stream: device::stream(kind)? })
    }
}

impl Link for MlxLink {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn send(&mut self, to: usize, numbers: &[f32]) -> vllm_platform::Result<()> {
        let sent = with_stream(&self.stream.clone(), || -> Result<()> {
            let x = Tensor::from_slice(numbers, &[dim(numbers.len())]);
            Ok(self.group.send(&x, to)?.eval()?)
        });
        sent.map_err(Error::into_step_error)
    }

    fn receive(&mut self, from: usize, len: usize) -> vllm_platform::Result<Vec<f32>> {
        let received = with_stream(&self.stream.clone(), || -> Result<Vec<f32>> {
            let x = self.group.receive(&[dim(len)], Dtype::Float32, from)?;
            x.eval()?;
            let numbers = x.try_as_slice::<f32>().map_err(|error| Error::Plan(format!("what came: {error}")))?;
            Ok(numbers.to_vec())
        });
        received.map_err(Error::into_step_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_that_is_not_here_is_refused() {
        let error = MlxLink::open("pigeons").map(drop).expect_err("no such thing").to_string();
        assert!(error.starts_with("the MLX here has no pigeons; it has: "), "{error}");
    }

    #[test]
    fn the_ring_is_here_and_says_what_it_misses() {
        assert!(is_available(c"ring"));
        assert!(std::env::var_os("MLX_HOSTFILE").is_none(), "this test wants an environment without a ring");
        let error = MlxLink::open("ring").map(drop).expect_err("nobody said who takes part").to_string();
        assert!(error.starts_with("ring: the environment has no MLX_RANK; who takes part is said by"), "{error}");
    }
}
