//! Lets in who has a key.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::KeyRing;
use crate::http::{
    ApiError, App,
    client::{Account, Caller, Peer, keys_in, name_of},
    request_id::Id,
};

/// What probes and scrapers ask for, which have no keys.
const OPEN: [&str; 5] = ["/health", "/live", "/metrics", "/ping", "/ready"];
/// The same over gRPC: health, and which services there are.
const OPEN_SERVICES: [&str; 3] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// Finds out whose a request is, and turns it away if it has to have a key and hasn't.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match identify(&app.shared.access.rules().keys, &request) {
        Ok(caller) => {
            if let Some(id) = request.extensions_mut().get_mut::<Id>() {
                id.caller = caller;
            }
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

fn identify(keys: &KeyRing, request: &Request) -> Result<Caller, Refused> {
    let mut sent = keys_in(request.headers()).peekable();
    let account = || Account::of(request.extensions().get::<Peer>().copied());
    if keys.is_empty() {
        // A client could make up a new key for each request: accounts are by address.
        return Ok(Caller { client: sent.next().map(name_of), account: account() });
    }
    let refused = if sent.peek().is_none() { Refused::NoKey } else { Refused::WrongKey };
    match sent.find_map(|key| keys.owner(key)) {
        Some(owner) => Ok(Caller { client: Some(owner.clone()), account: Account::Key(owner) }),
        None if is_open(request.uri().path()) => Ok(Caller { client: None, account: account() }),
        None => Err(refused),
    }
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || OPEN_SERVICES.iter().any(|service| path.starts_with(service))
}

enum Refused {
    NoKey,
    WrongKey,
}

impl Refused {
    fn into_response(self) -> Response {
        let message = match self {
            Self::NoKey => "this server wants an API key: send it as Authorization: Bearer KEY, or as x-api-key",
            Self::WrongKey => "this server does not know that API key",
        };
        let mut response = ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    }
}
