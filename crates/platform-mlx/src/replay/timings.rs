//! Where a step's time goes, by operation.

use std::{collections::BTreeMap, ffi::CStr, time::Duration};

use vllm_platform::WorkTime;

/// Time in kernels, by their names.
#[derive(Debug, Default)]
pub(crate) struct Timings(BTreeMap<&'static CStr, (u64, Duration)>);

impl Timings {
    /// A call of `name` took `time`.
    pub fn add(&mut self, name: &'static CStr, time: Duration) {
        let (calls, total) = self.0.entry(name).or_default();
        *calls += 1;
        *total += time;
    }

    /// Name, calls and time in all.
    pub fn into_work(self) -> Vec<WorkTime> {
        let work =
            |(name, (calls, time)): (&CStr, _)| WorkTime { name: name.to_string_lossy().into_owned(), calls, time };
        self.0.into_iter().map(work).collect()
    }
}
