//! Bars on stderr while a model is fetched and loaded. Silent where stderr is no terminal.

use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use vllm_checkpoint::hub::Progress;

use crate::model::{LoadObserver, LoadStage};

/// An observer that draws bars.
pub fn bars() -> LoadObserver {
    let current: Mutex<Option<(Kind, ProgressBar)>> = Mutex::default();
    Arc::new(move |stage| {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = |current: &mut Option<(Kind, ProgressBar)>, kind: Kind, total: u64| match current {
            Some((of, bar)) if *of == kind => bar.clone(),
            _ => {
                if let Some((_, old)) = current.take() {
                    old.finish_and_clear();
                }
                let bar = kind.bar(total);
                *current = Some((kind, bar.clone()));
                bar
            }
        };
        match stage {
            LoadStage::Download(Progress::Plan { bytes, present, .. }) if present < bytes => {
                bar(&mut current, Kind::Download, bytes).set_position(present);
            }
            LoadStage::Download(Progress::Bytes { file, overall, .. }) => {
                let bar = bar(&mut current, Kind::Download, overall);
                bar.set_message(file.to_owned());
                bar.set_position(overall);
            }
            LoadStage::Download(Progress::Retry { file, why }) => {
                warn(current.as_ref(), &format!("{file}: {why}; trying again"));
            }
            LoadStage::Download(Progress::Unreachable { why }) => {
                warn(current.as_ref(), &format!("the hub cannot be reached, using the cache: {why}"));
            }
            // The hub's events may grow.
            LoadStage::Download(_) => {}
            LoadStage::Weights { done, total } => {
                bar(&mut current, Kind::Weights, total as u64).set_position(done as u64);
            }
            LoadStage::Ready => {
                if let Some((_, bar)) = current.take() {
                    bar.finish_and_clear();
                }
            }
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Download,
    Weights,
}

impl Kind {
    fn bar(self, total: u64) -> ProgressBar {
        let template = match self {
            Self::Download => "fetching {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
            Self::Weights => "loading {wide_bar} {pos}/{len} tensors",
        };
        // The templates are constants; a test makes both.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(total).with_style(style)
    }
}

fn warn(current: Option<&(Kind, ProgressBar)>, text: &str) {
    match current {
        Some((_, bar)) => bar.suspend(|| eprintln!("warning: {text}")),
        None => eprintln!("warning: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_in_any_order_draw_nothing_wrong() {
        let observer = bars();
        observer(LoadStage::Download(Progress::Plan { files: 2, bytes: 10, present: 3 }));
        observer(LoadStage::Download(Progress::Bytes { file: "a", done: 1, size: 5, overall: 4 }));
        observer(LoadStage::Weights { done: 1, total: 2 });
        observer(LoadStage::Ready);
        observer(LoadStage::Weights { done: 2, total: 2 });
        for kind in [Kind::Download, Kind::Weights] {
            assert_eq!(kind.bar(7).length(), Some(7));
        }
    }
}
