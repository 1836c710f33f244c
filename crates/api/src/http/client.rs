//! Who asks: names for keys that tell nobody the keys, and whose account a request is on.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, LazyLock},
};

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Of this process only, so that a name in a log can't be looked up in a table of hashed keys.
static SALT: LazyLock<String> = LazyLock::new(crate::random::hex_id);

/// Where a connection comes from. The listener puts it into the extensions of each of its requests.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// A connection's place among all that the server serves at once. The listener puts it into the extensions of each request, for
/// those that go on as something else than HTTP: they hold on to it, and hear when the server ends.
#[derive(Debug, Clone)]
pub struct Seat {
    _slot: Arc<OwnedSemaphorePermit>,
    ending: watch::Receiver<bool>,
}

impl Seat {
    /// A place, and the word of the server's end.
    #[must_use]
    pub fn new(slot: OwnedSemaphorePermit, ending: watch::Receiver<bool>) -> Self {
        Self { _slot: Arc::new(slot), ending }
    }

    /// Waits until the server ends.
    pub async fn ending(&mut self) {
        // Without a sender there is no server any more.
        let _ = self.ending.wait_for(|&ending| ending).await;
    }
}

/// Who sent a request, as far as the server knows.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// A name for the key, as logs, fair shares and ownership of requests have it.
    pub client: Option<Arc<str>>,
    /// Whose limits its requests count to.
    pub account: Account,
}

/// What has limits of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Account {
    /// A key that the server knows, by its name.
    Key(Arc<str>),
    /// An address.
    Address(IpAddr),
    /// All that have no account of their own.
    #[default]
    Others,
}

impl Account {
    /// The account of an address. Whoever has one IPv6 address has 2⁶⁴ of them: they are one account.
    pub fn of(peer: Option<Peer>) -> Self {
        match peer.map(|Peer(address)| address.to_canonical()) {
            None => Self::Others,
            Some(IpAddr::V6(address)) => {
                Self::Address(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into())
            }
            Some(address) => Self::Address(address),
        }
    }
}

/// What a key begins with that a browser sends with a WebSocket: as a protocol, for it can't set headers.
const KEY_AS_PROTOCOL: &[u8] = b"openai-insecure-api-key.";

/// The keys in a request's headers: of `Authorization: Bearer`, then of `x-api-key`, then of `Sec-WebSocket-Protocol`.
pub fn keys_in(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(b"bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let other = headers.get("x-api-key").map(|value| value.as_bytes());
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let protocols = protocols.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let protocols = protocols.filter_map(|protocol| protocol.trim_ascii().strip_prefix(KEY_AS_PROTOCOL));
    bearer.into_iter().chain(other).chain(protocols).map(<[u8]>::trim_ascii).filter(|key| !key.is_empty())
}

/// A name for a key; the same for the same key as long as the process lives.
pub fn name_of(key: &[u8]) -> Arc<str> {
    let digest = Sha256::new().chain_update(SALT.as_bytes()).chain_update(key).finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(name: &'static str, value: &'static str) -> Option<Arc<str>> {
        keys_in(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])).next().map(name_of)
    }

    #[test]
    fn a_key_has_one_name_that_does_not_show_it() {
        let name = of("authorization", "Bearer secret").unwrap();
        assert!(!name.contains("secret"));
        assert_eq!(of("authorization", "bearer secret").as_ref(), Some(&name));
        assert_eq!(of("x-api-key", "secret").as_ref(), Some(&name));
        assert_eq!(of("sec-websocket-protocol", "realtime, openai-insecure-api-key.secret").as_ref(), Some(&name));
        assert_ne!(of("x-api-key", "Secret").unwrap(), name);
        for (header, value) in [
            ("authorization", "Basic secret"),
            ("authorization", "Bearer "),
            ("x-api-key", " "),
            ("sec-websocket-protocol", "realtime"),
        ] {
            assert_eq!(of(header, value), None, "{header}: {value}");
        }
    }

    #[test]
    fn accounts_of_addresses() {
        let of = |address: &str| Account::of(Some(Peer(address.parse().unwrap())));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"), "an IPv4 address on an IPv6 socket");
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(Account::of(None), Account::Others);
    }
}
