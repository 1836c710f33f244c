//! Counts of HTTP requests.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode},
};
use http_body::{Frame, SizeHint};
use vllm_scheduler::Histogram;

use super::exposition::Exposition;

const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A method and the route it was for.
type Key = (&'static str, String);

/// Counts by method and route.
#[derive(Debug, Default)]
pub struct HttpMetrics(Mutex<BTreeMap<Key, Series>>);

#[derive(Debug)]
struct Series {
    by_status: BTreeMap<u16, u64>,
    seconds: Histogram,
    in_flight: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { by_status: BTreeMap::new(), seconds: Histogram::new(&SECONDS), in_flight: 0 }
    }
}

impl HttpMetrics {
    /// A request has come for a route; `None` if there is none such.
    pub fn start(self: &Arc<Self>, method: &Method, route: Option<String>) -> InFlight {
        // Nobody can make series by making up methods and paths.
        let known = [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::HEAD, Method::OPTIONS];
        let names = ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"];
        let method = known.iter().position(|known| known == method).map_or("other", |index| names[index]);
        let key = (method, route.unwrap_or_else(|| "other".into()));
        self.update(&key, |series| series.in_flight += 1);
        InFlight { metrics: Arc::clone(self), key, start: Instant::now(), status: None }
    }

    fn update(&self, key: &Key, change: impl FnOnce(&mut Series)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(key.clone()).or_default());
    }

    /// Writes the series.
    pub fn write(&self, out: &mut Exposition) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, path), series) in all.iter() {
            for (status, count) in &series.by_status {
                let status = status.to_string();
                let labels = [("method", *method), ("path", path), ("status_code", &status)];
                out.counter("vllm_mlx_http_requests_total", "Requests answered.", &labels, *count);
            }
        }
        for ((method, path), series) in all.iter() {
            let help = "From a request's head to the end of its answer.";
            let labels = [("method", *method), ("path", path)];
            out.histogram("vllm_mlx_http_request_duration_seconds", help, &labels, &series.seconds);
        }
        for ((method, path), series) in all.iter() {
            let labels = [("method", *method), ("path", path)];
            out.gauge("vllm_mlx_http_requests_in_flight", "Requests being answered.", &labels, series.in_flight as f64);
        }
    }
}

/// A request being answered. Counted with its status when dropped; one whose client left before there was a status
/// counts as nginx's 499.
#[derive(Debug)]
pub struct InFlight {
    metrics: Arc<HttpMetrics>,
    key: Key,
    start: Instant,
    status: Option<StatusCode>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let status = self.status.map_or(499, |status| status.as_u16());
        let seconds = self.start.elapsed().as_secs_f64();
        self.metrics.update(&self.key, |series| {
            series.in_flight -= 1;
            *series.by_status.entry(status).or_default() += 1;
            series.seconds.record(seconds);
        });
    }
}

/// A body whose end is the end of its request.
#[derive(Debug)]
pub struct Counted {
    body: Body,
    _in_flight: InFlight,
}

impl Counted {
    /// Counts the request when the body has been sent or is dropped.
    pub fn new(body: Body, mut in_flight: InFlight, status: StatusCode) -> Self {
        in_flight.status = Some(status);
        Self { body, _in_flight: in_flight }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
