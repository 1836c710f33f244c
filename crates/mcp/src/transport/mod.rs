//! The ways to a server, each as a transport of `rmcp`.

pub mod child;
mod flood;
pub mod http;
mod paced;
mod sse;

pub use flood::Guarded;
