//! Who may ask, how much, and from which pages: what an operator can change while the server runs.

mod auth;
mod cors;
mod keys;
mod quota;
mod rate_limit;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

pub(crate) use auth::layer as auth_layer;
pub(super) use cors::layer as cors_layer;
pub use cors::{InvalidOrigin, Origins};
pub use keys::{InvalidKey, KeyRing};
pub use rate_limit::Rate;
pub(crate) use rate_limit::layer as rate_limit_layer;

use self::rate_limit::RateLimiter;
use super::client::Account;

/// What holds for all requests. The default lets everybody do everything, except from foreign pages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// The keys that open this server; none: it is open.
    pub keys: KeyRing,
    /// What each caller may use.
    pub rate: Rate,
    /// The pages whose scripts may read our answers.
    pub origins: Origins,
}

/// The rules with the accounts kept under them.
#[derive(Debug, Default)]
pub(super) struct Access {
    rules: RwLock<Arc<Rules>>,
    limiter: RateLimiter,
}

impl Access {
    /// The rules as they are now. A request asks once and stays under what it got.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// New rules, from the next request on. What accounts have used stays used.
    pub fn set(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Puts tokens on an account.
    pub fn charge(&self, account: &Account, tokens: usize) {
        self.limiter.charge(account, tokens, self.rules().rate, Instant::now());
    }
}
