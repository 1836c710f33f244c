//! Tells of an engine that has work and gets nowhere.

use std::time::{Duration, Instant};

use crate::http::App;

/// Looks at the engine for as long as it is polled. An episode of silence is logged when it has lasted for `limit`, and
/// again when it is over; `/health` and `/metrics` see it by themselves.
pub async fn watch(app: App, limit: Duration) {
    let pause = (limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut since: Option<Instant> = None;
    loop {
        tokio::time::sleep(pause).await;
        match (app.stalled(), since) {
            (Some(silence), None) => {
                since = Some(Instant::now());
                for model in app.loaded() {
                    let stats = model.engine.stats();
                    tracing::error!(
                        model = model.names.first(),
                        silence_s = silence.as_secs_f64(),
                        running = stats.running,
                        waiting = stats.waiting,
                        blocks_in_use = stats.blocks_in_use(),
                        steps = stats.steps,
                        last_step_s = stats.last_step.map(|then| then.elapsed().as_secs_f64()),
                        "an engine has work in hand and ends no step"
                    );
                }
            }
            (None, Some(start)) => {
                since = None;
                tracing::warn!(after_s = start.elapsed().as_secs_f64(), "the engine takes steps again");
            }
            _ => {}
        }
    }
}
