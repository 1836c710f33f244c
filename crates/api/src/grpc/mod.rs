//! The gRPC server: what fleets' gateways ask of a worker, over the same engines, books and rules as HTTP.
//!
//! **Invariant:** nothing is decided here that HTTP decides too. A generation is a `POST /v1/completions` in other words
//! ([`ask`]); keys, limits and quotas are the same layers; errors are HTTP's, said as a [`tonic::Status`].

mod access;
pub(crate) mod ask;
mod health;
pub(crate) mod status;

use axum::{Router, middleware};
use health::HealthService;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::http::{App, access as rules, body_time, request_id};

/// The services that can be asked for their health.
const SERVICES: &[&str] = &["vllm.Control", "vllm.Inference"];

/// All services, as a router for [`Listener::serve`](crate::listener::Listener::serve).
pub fn router(app: App) -> Router {
    let routes = Routes::new(HealthServer::new(HealthService { app: app.clone() }));
    let with = |app: &App| app.clone();
    routes
        .prepare()
        .into_axum_router()
        .layer(middleware::from_fn_with_state(with(&app), body_time::layer))
        .layer(middleware::from_fn_with_state(with(&app), rules::rate_limit_layer))
        .layer(middleware::from_fn_with_state(with(&app), rules::auth_layer))
        .layer(middleware::from_fn_with_state(with(&app), access::layer))
        .layer(middleware::from_fn_with_state(app, request_id::layer))
}
