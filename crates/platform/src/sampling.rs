//! How a token is chosen from logits.
//!
//! [`SamplingParams`] is what a request asks for; [`Sampler`] is the host's implementation, used by every backend
//! that has its logits in host memory and as the reference for those that sample on their device.
//!
//! The order is vLLM's: the request's own [`LogitsProcessor`]s, logit bias, repetition penalty, frequency and presence penalty, temperature, min-p, top-k,
//! top-p, then one draw. Each filter works on what the one before it left, renormalised. The random number of a
//! draw is a pure function of the request's seed and the position in the answer ([`uniform`]), so that neither
//! batching nor preemption ever changes what a seeded request answers.

mod exponential;
mod filter;
mod logprobs;
mod params;
mod processor;
mod random;
#[cfg(test)]
mod reference;
mod sampler;

pub use logprobs::token_logprobs;
pub use params::{InvalidParam, MAX_LOGPROBS, SamplingParams};
pub use processor::{AllowedTokens, BadWords, LogitsProcessor, MinTokens};
pub use random::uniform;
pub use sampler::{Draw, Sampler};
