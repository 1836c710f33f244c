//! What operators see from outside: logs, and traces over OTLP.
//!
//! A trace is made after its request has ended, from the times that were kept along the way, so that nothing of it
//! stands between a token and its client.

mod http_client;
mod log;
mod otlp;
mod parent;
mod trace;
mod watchdog;

pub use log::{LogArgs, LogFormat};
pub use otlp::Tracer;
pub use parent::Parent;
pub use trace::{AnswerTrace, MediaTrace, RequestTrace};
pub use watchdog::watch;
