//! What is done to a running worker: requests ended, the cache flushed, the engine's time taken.

use std::time::Duration;

use tonic::Status;
use vllm_grpc_proto::smg::common::{FlushCacheRequest, FlushCacheResponse, ProfileResponse, StartProfileRequest};
use vllm_scheduler::{FlushError, Profile};

use super::{
    super::{
        ask::Caller,
        status::{refused, status},
    },
    Worker,
};
use crate::http::requests;

impl Worker {
    /// Ends the requests of these names. Those that there aren't have ended already, which is as good.
    pub async fn abort(&self, caller: &Caller, names: &[String]) -> Result<(), Status> {
        for name in names {
            requests::end(&self.app, &caller.id, name).await.map_err(|error| status(&error))?;
        }
        Ok(())
    }

    /// Forgets all prefixes, and what media were, when no request uses them.
    pub async fn flush(&self, request: &FlushCacheRequest) -> Result<FlushCacheResponse, Status> {
        let seconds = request.timeout_s;
        let wait = Duration::try_from_secs_f32(seconds)
            .map_err(|_| refused("timeout_s", &format!("{seconds} is no number of seconds to wait")))?;
        let mut blocks = 0;
        for model in self.app.loaded() {
            match model.engine.flush_cache(wait).await {
                Ok(more) => blocks += more,
                Err(error @ FlushError::InFlight { .. }) => {
                    return Ok(FlushCacheResponse { success: false, message: error.to_string() });
                }
                Err(error @ FlushError::Stopped) => return Err(Status::unavailable(error.to_string())),
            }
            if let Some(vision) = &model.vision {
                vision.engine.clear_cache();
            }
        }
        if let Some(loader) = &self.app.loader {
            loader.forget();
        }
        tracing::info!(blocks, "cache flushed");
        Ok(FlushCacheResponse { success: true, message: format!("{blocks} blocks forgotten") })
    }

    /// Begins to count what the engine spends its time on.
    pub async fn start_profile(&self, request: &StartProfileRequest) -> Result<ProfileResponse, Status> {
        let options = [
            ("output_dir", request.output_dir.is_some()),
            ("start_step", request.start_step.is_some()),
            ("num_steps", request.num_steps.is_some()),
            ("activities", !request.activities.is_empty()),
            ("with_stack", request.with_stack.is_some()),
            ("record_shapes", request.record_shapes.is_some()),
            ("profile_by_stage", request.profile_by_stage),
        ];
        if let Some((option, _)) = options.into_iter().find(|(_, is_set)| *is_set) {
            return Err(refused(option, "all kinds of work are counted from now on, and told when counting stops"));
        }
        self.profile().await?;
        Ok(ProfileResponse { success: true, message: "counting".to_owned() })
    }

    /// Says what was counted since then.
    pub async fn stop_profile(&self) -> Result<ProfileResponse, Status> {
        let message = summary(&self.profile().await?);
        tracing::info!(profile = message, "the engine's time");
        Ok(ProfileResponse { success: true, message })
    }

    async fn profile(&self) -> Result<Profile, Status> {
        let model = self.loaded().ok_or_else(|| Status::failed_precondition("no model is loaded"))?;
        let profile = tokio::task::spawn_blocking(move || model.engine.profile()).await;
        let profile = profile.map_err(|error| Status::internal(error.to_string()))?;
        profile.ok_or_else(|| Status::unavailable("the engine has stopped"))
    }
}

/// On a line: `12 steps in 3.400 s, 3.100 s of it in the runner: attention 240 × 1.200 s, …`.
fn summary(profile: &Profile) -> String {
    let (wall, in_steps) = (profile.wall.as_secs_f64(), profile.in_steps.as_secs_f64());
    let work =
        profile.work.iter().map(|work| format!("{} {} × {:.3} s", work.name, work.calls, work.time.as_secs_f64()));
    let work: Vec<String> = work.collect();
    let kinds = if work.is_empty() { String::new() } else { format!(": {}", work.join(", ")) };
    format!("{} steps in {wall:.3} s, {in_steps:.3} s of it in the runner{kinds}", profile.steps)
}
