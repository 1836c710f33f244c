//! A model over several machines, as the commands see it.

use std::{sync::Arc, time::Duration};

use vllm_dist::{Pipeline, PipelineStatus, Surroundings, Token};

use crate::model::open_platform;

/// The other machines, and what they must know.
#[derive(Debug, Clone)]
pub struct PipelineSpec {
    /// Who they are, and who does what.
    pub pipeline: Pipeline,
    /// What all must know; `None`: nothing.
    pub token: Option<Token>,
}

/// The ranks have lost each other and can't be joined again by this process.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Over(pub String);

impl Over {
    /// What the process ends with: to be started again (`EX_TEMPFAIL` of sysexits.h).
    pub const EXIT_CODE: u8 = 75;
}

/// What ranks have to know of this process.
#[must_use]
pub fn surroundings(token: Option<Token>) -> Surroundings {
    Surroundings {
        token,
        say: Arc::new(|line| eprintln!("{line}")),
        open_link: Arc::new(|transport| open_platform()?.link(transport)),
    }
}

/// Waits until a pipeline is over, and says why; for ever, if that never happens.
pub async fn over(pipelines: Vec<PipelineStatus>) -> String {
    if pipelines.is_empty() {
        return std::future::pending().await;
    }
    loop {
        if let Some(why) = pipelines.iter().find_map(PipelineStatus::over) {
            return why;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
