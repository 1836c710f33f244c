//! The gRPC server: what fleets' gateways ask of a worker, over the same engines, books and rules as HTTP.
//!
//! **Invariant:** nothing is decided here that HTTP decides too. A generation is a `POST /v1/completions` in other words
//! (`ask`); keys, limits and quotas are the same layers; errors are HTTP's, said as a [`tonic::Status`].

mod access;
pub(crate) mod ask;
mod control;
mod health;
mod inference;
mod open;
mod reflection;
mod smg;
pub(crate) mod status;

use axum::{Router, middleware};
use control::ControlService;
use health::HealthService;
use inference::InferenceService;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use vllm_grpc_proto::vllm_proto::{control_server::ControlServer, inference_server::InferenceServer};

use crate::http::{App, access as rules, body_time, request_id};

/// The services that can be asked for their health.
const SERVICES: &[&str] =
    &["mlx.grpc.engine.MlxEngine", "vllm.Control", "vllm.Inference", "vllm.grpc.engine.VllmEngine"];

/// All services, as a router for [`Listener::serve_grpc`](crate::listener::Listener::serve_grpc).
pub fn router(app: App) -> Router {
    let limit = app.config.body_limit;
    let inference = InferenceServer::new(InferenceService { app: app.clone() }).max_decoding_message_size(limit);
    let control = ControlServer::new(ControlService { app: app.clone() }).max_decoding_message_size(limit);
    let (mlx, vllm) = smg::services(&app);
    let (mlx, vllm) = (mlx.max_decoding_message_size(limit), vllm.max_decoding_message_size(limit));
    let computing = Routes::new(inference).add_service(control).add_service(mlx).add_service(vllm);
    let computing = computing.prepare().into_axum_router();
    let open = Routes::new(HealthServer::new(HealthService { app: app.clone() }));
    let open = reflection::add(open).prepare().into_axum_router();
    // Clients of these may go on asking for as long as they like; their calls end with the server.
    let open = open.layer(middleware::from_fn_with_state(app.clone(), open::layer)).reset_fallback();
    computing
        .layer(middleware::from_fn_with_state(app.clone(), body_time::layer))
        .merge(open)
        .layer(middleware::from_fn_with_state(app.clone(), rules::rate_limit_layer))
        .layer(middleware::from_fn_with_state(app.clone(), rules::auth_layer))
        .layer(middleware::from_fn_with_state(app.clone(), access::layer))
        .layer(middleware::from_fn_with_state(app, request_id::layer))
}
