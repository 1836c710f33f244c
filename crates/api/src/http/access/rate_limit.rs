//! Requests and tokens a minute, by key or address.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::quota::{Quota, Used, show};
use crate::http::{ApiError, App, client::Account, request_id::Id};

/// Most accounts that are told apart; callers beyond them share one, so that nobody fills the memory with addresses.
const MAX_ACCOUNTS: usize = 10_000;
/// How often accounts that are at rest are looked for when there are too many.
const SWEEP: Duration = Duration::from_secs(1);

/// What each account may use in a minute; 0: as much as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// Requests that compute something.
    pub requests: u64,
    /// Tokens of prompts and answers. They are known at a request's end only: as long as any are left, the next
    /// request is let in, and what it uses beyond them has to come back first.
    pub tokens: u64,
}

/// What all accounts have used.
#[derive(Debug, Default)]
pub(super) struct RateLimiter(Mutex<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    used: HashMap<Account, AccountUse>,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct AccountUse {
    requests: Used,
    tokens: Used,
}

/// What became of a request that asked to be let in.
#[derive(Debug)]
struct Verdict {
    requests: Option<Quota>,
    tokens: Option<Quota>,
    /// What there is too little of, and for how long.
    refused: Option<(&'static str, Duration)>,
}

impl RateLimiter {
    fn admit(&self, account: &Account, rate: Rate, now: Instant) -> Verdict {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = accounts.of(account, rate, now);
        let requests = (rate.requests > 0).then(|| used.requests.under(rate.requests, now));
        let tokens = (rate.tokens > 0).then(|| used.tokens.under(rate.tokens, now));
        let refused = match (requests, tokens) {
            (Some(quota), _) if quota.remaining() == 0 => Some(("requests", quota.wait_for(1.0))),
            (_, Some(quota)) if quota.remaining() == 0 => Some(("tokens", quota.wait_for(1.0))),
            _ => None,
        };
        if refused.is_some() || requests.is_none() {
            return Verdict { requests, tokens, refused };
        }
        used.requests.add(1.0);
        Verdict { requests: requests.map(|quota| quota.less(1.0)), tokens, refused }
    }

    /// Puts tokens on an account.
    pub(super) fn charge(&self, account: &Account, tokens: usize, rate: Rate, now: Instant) {
        if rate.tokens == 0 {
            return;
        }
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = &mut accounts.of(account, rate, now).tokens;
        // What was used before comes back until now, not what is added now.
        used.under(rate.tokens, now);
        used.add(tokens as f64);
    }
}

impl Accounts {
    fn of(&mut self, account: &Account, rate: Rate, now: Instant) -> &mut AccountUse {
        let full = self.used.len() >= MAX_ACCOUNTS && !self.used.contains_key(account);
        if full && self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.used.retain(|_, used| !used.is_at_rest(rate, now));
        }
        let shared = full && self.used.len() >= MAX_ACCOUNTS;
        let account = if shared { Account::Others } else { account.clone() };
        let fresh = AccountUse { requests: Used::nothing(now), tokens: Used::nothing(now) };
        self.used.entry(account).or_insert(fresh)
    }
}

impl AccountUse {
    /// Whether it may be forgotten. What there is no limit on doesn't matter.
    fn is_at_rest(&mut self, rate: Rate, now: Instant) -> bool {
        [(&mut self.requests, rate.requests), (&mut self.tokens, rate.tokens)].into_iter().all(|(used, limit)| {
            let quota = (limit > 0).then(|| used.under(limit, now));
            quota.is_none() || used.is_nothing()
        })
    }
}

/// Lets requests that compute something in as far as their callers' quotas go. Looking, and cancelling, is free.
pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let rate = app.shared.access.rules().rate;
    if rate == Rate::default() || !computes(&request) {
        return next.run(request).await;
    }
    let account = request.extensions().get::<Id>().map(|id| id.caller.account.clone()).unwrap_or_default();
    let verdict = app.shared.access.limiter.admit(&account, rate, Instant::now());
    let mut response = match verdict.refused {
        None => next.run(request).await,
        Some((what, wait)) => refuse(what, wait, rate),
    };
    verdict.write(response.headers_mut());
    response
}

/// The procedures of gRPC services that compute something.
const PROCEDURES: [&str; 3] = ["Embed", "Generate", "GenerateStream"];

fn computes(request: &Request) -> bool {
    let Some(route) = request.extensions().get::<MatchedPath>() else { return false };
    request.method() == Method::POST
        && match route.as_str().strip_suffix("/{*rest}") {
            // A gRPC service: all of its procedures are POSTs.
            Some(service) => request
                .uri()
                .path()
                .strip_prefix(service)
                .is_some_and(|rest| PROCEDURES.contains(&rest.trim_start_matches('/'))),
            None => !route.as_str().ends_with("/cancel"),
        }
}

fn refuse(what: &str, wait: Duration, rate: Rate) -> Response {
    let limit = if what == "tokens" { rate.tokens } else { rate.requests };
    let message = format!("the limit is {limit} {what} a minute: try again in {}", show(wait));
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message);
    error.with_retry_after(wait).into_response()
}

impl Verdict {
    /// Writes the quotas as OpenAI does.
    fn write(&self, headers: &mut HeaderMap) {
        let names = [
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
            ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
        ];
        for (quota, [limit, remaining, reset]) in [self.requests, self.tokens].into_iter().zip(names) {
            let Some(quota) = quota else { continue };
            headers.insert(HeaderName::from_static(limit), quota.limit.into());
            headers.insert(HeaderName::from_static(remaining), quota.remaining().into());
            if let Ok(value) = HeaderValue::from_str(&show(quota.reset())) {
                headers.insert(HeaderName::from_static(reset), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> Account {
        Account::Address(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn each_account_has_its_own_quota() {
        let (limiter, rate, start) = (RateLimiter::default(), Rate { requests: 2, tokens: 0 }, Instant::now());
        let let_in = |number, seconds| {
            let verdict = limiter.admit(&address(number), rate, start + Duration::from_secs(seconds));
            verdict.refused.map(|(what, wait)| (what, wait.as_secs()))
        };
        assert_eq!([let_in(1, 0), let_in(1, 0)], [None, None]);
        assert_eq!(let_in(1, 0), Some(("requests", 30)));
        assert_eq!(let_in(2, 0), None);
        assert_eq!(let_in(1, 29), Some(("requests", 1)), "to be refused costs nothing");
        assert_eq!([let_in(1, 30), let_in(1, 31)], [None, Some(("requests", 29))]);
    }

    #[test]
    fn tokens_are_paid_for_afterwards() {
        let (limiter, rate, start) = (RateLimiter::default(), Rate { requests: 0, tokens: 60 }, Instant::now());
        let admit = |seconds| limiter.admit(&address(1), rate, start + Duration::from_secs(seconds));
        let charge = |tokens| limiter.charge(&address(1), tokens, rate, start);
        assert!(admit(0).refused.is_none());
        charge(59);
        assert!(admit(0).refused.is_none(), "one is left");
        charge(100);
        assert_eq!(admit(0).refused, Some(("tokens", Duration::from_secs(100))));
        assert_eq!(admit(99).refused, Some(("tokens", Duration::from_secs(1))), "the debt is paid first");
        assert_eq!(admit(102).tokens.map(Quota::remaining), Some(3));
    }

    #[test]
    fn accounts_are_bounded_and_forgotten() {
        let (limiter, rate, start) = (RateLimiter::default(), Rate { requests: 1, tokens: 0 }, Instant::now());
        let admit = |number, seconds| limiter.admit(&address(number), rate, start + Duration::from_secs(seconds));
        let count = || limiter.0.lock().unwrap().used.len();
        for number in 0..MAX_ACCOUNTS as u32 {
            assert!(admit(number, 0).refused.is_none());
        }
        assert!(admit(u32::MAX, 0).refused.is_none());
        assert!(admit(u32::MAX - 1, 0).refused.is_some(), "those beyond share one account");
        assert_eq!(count(), MAX_ACCOUNTS + 1);
        assert!(admit(0, 1).refused.is_some(), "nobody's use is forgotten too early");
        assert!(admit(u32::MAX - 1, 61).refused.is_none());
        assert_eq!(count(), 1, "whoever has used nothing for long enough is not remembered");
    }
}
