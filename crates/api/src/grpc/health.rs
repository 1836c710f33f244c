//! `grpc.health.v1`: whether requests can be served, as `GET /health` says it.

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use super::SERVICES;
use crate::http::{App, health};

/// How often a watcher's server looks at itself: nothing tells when an engine falls silent.
const LOOK: Duration = Duration::from_millis(250);

/// The service.
#[derive(Debug)]
pub(super) struct HealthService {
    pub app: App,
}

impl HealthService {
    /// All services stand and fall together: they have the same engines.
    fn status(&self) -> ServingStatus {
        if health::state(&self.app) == health::SERVING { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

/// Whether there is a service of that name; the empty name is the server's.
fn is_known(service: &str) -> bool {
    service.is_empty() || SERVICES.contains(&service)
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !is_known(&service) {
            return Err(Status::not_found(format!("there is no service {service:?} here")));
        }
        Ok(Response::new(response(self.status())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Says how it stands at once, then each time that this changes. Ends when the server does: after the word that it is on its
    /// way down, so that nobody waits for the watchers.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        // As the protocol has it: one that isn't there may come to be.
        let known = is_known(&service);
        let watched = Self { app: self.app.clone() };
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = (watched, ticks, None, false);
        let changes = futures_util::stream::unfold(state, move |(watched, mut ticks, mut last, ended)| async move {
            if ended {
                return None;
            }
            let mut draining = watched.app.draining();
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = draining.begun() => {}
                }
                let ended = draining.has_begun();
                let status = if known { watched.status() } else { ServingStatus::ServiceUnknown };
                if last.replace(status) != Some(status) {
                    return Some((Ok(response(status)), (watched, ticks, last, ended)));
                }
                if ended {
                    return None;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
