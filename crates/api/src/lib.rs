//! `vllm-mlx`: the command line and the HTTP server, as a library so that tests can drive them.
//!
//! **Invariant:** this crate composes and decides nothing. It translates wire formats and terminals into
//! [`vllm_scheduler::Request`]s and back; it does no model mathematics, and a handler never blocks an async worker:
//! tokenising and templating run on blocking threads, computing on the engine's own.
//!
//! ```text
//! body → Fields → request of the route → template → tokens → EngineHandle::submit → Answer (text) → JSON or SSE
//! ```

pub mod answer;
pub mod cli;
pub mod encoder;
pub mod grpc;
pub mod http;
pub mod listener;
mod memory;
pub mod model;
pub mod pipeline;
mod random;
pub mod residency;
pub mod speech;
pub mod telemetry;
pub mod vision;
