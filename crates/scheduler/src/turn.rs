//! Whose turn it is on the device, among the engines of a process.
//!
//! Engines that generate are read along by people: they go first, and need not wait for each other. Work in the
//! background, which is whole texts to be encoded, is done in short slices, one at a time. Where nobody generates, one
//! follows the other; where somebody does, slices are so rare that they take at most a quarter of the time. So a token is
//! late by one slice now and then, and the background still gets on.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::handle::lock;

/// How much time generation gets for each slice in the background, in lengths of the slice.
const PRECEDENCE: u32 = 3;

/// So long after its last step, an engine that generates has nothing to do: between two steps it takes less.
const IDLE: Duration = Duration::from_millis(4);

/// The device that all engines of this process compute on.
pub(crate) static DEVICE: Turn = Turn::new();

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Turn {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Steps of generation under way.
    steps: usize,
    /// When the last of them ended.
    last_step: Option<Instant>,
    /// Whether a slice is under way.
    slice: bool,
    /// Slices whose time has come, for which no new step is begun.
    claims: usize,
    /// When the next slice's time comes if somebody generates.
    due: Option<Instant>,
}

/// A step of generation under way.
pub(crate) struct Step<'a>(&'a Turn);

/// A slice in the background under way.
pub(crate) struct Slice<'a> {
    turn: &'a Turn,
    start: Instant,
}

impl Turn {
    pub const fn new() -> Self {
        let state = State { steps: 0, last_step: None, slice: false, claims: 0, due: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Begins a step of generation, after the slice that is under way.
    pub fn step(&self) -> Step<'_> {
        let taken = |state: &mut State| state.slice || state.claims > 0;
        let mut state = self.changed.wait_while(lock(&self.state), taken).unwrap_or_else(PoisonError::into_inner);
        state.steps += 1;
        Step(self)
    }

    /// Begins a slice when its time has come.
    pub fn slice(&self) -> Slice<'_> {
        let mut state = lock(&self.state);
        let mut claimed = false;
        loop {
            let now = Instant::now();
            let free = !state.slice && state.steps == 0;
            let quiet_at = state.last_step.map_or(now, |end| end + IDLE);
            let due_at = state.due.unwrap_or(now);
            if free && (claimed || now >= quiet_at) {
                break;
            }
            if !claimed && !state.slice && now >= due_at {
                claimed = true;
                state.claims += 1;
                continue;
            }
            // A claim is woken by the end of what is in its way.
            let until = if claimed || state.slice { Duration::from_secs(1) } else { due_at - now };
            let until = if free && !claimed { until.min(quiet_at - now) } else { until };
            let waited = self.changed.wait_timeout(state, until);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.claims -= usize::from(claimed);
        state.slice = true;
        Slice { turn: self, start: Instant::now() }
    }
}

impl Slice<'_> {
    /// Ends the slice and begins the next when its time has come.
    pub fn pause(&mut self) {
        self.end();
        std::mem::forget(self.turn.slice());
        self.start = Instant::now();
    }

    fn end(&self) {
        let mut state = lock(&self.turn.state);
        state.slice = false;
        let now = Instant::now();
        state.due = Some(now + PRECEDENCE * (now - self.start));
        self.turn.changed.notify_all();
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.steps -= 1;
        state.last_step = Some(Instant::now());
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        thread,
    };

    use super::*;

    const STEP: Duration = Duration::from_millis(2);
    const SLICE: Duration = Duration::from_millis(4);

    #[test]
    fn the_background_has_all_the_time_that_nobody_else_wants() {
        let turn = Turn::new();
        let start = Instant::now();
        let mut slice = turn.slice();
        for _ in 0..100 {
            slice.pause();
        }
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    }

    #[test]
    fn generation_waits_for_one_slice_at_most_and_the_background_gets_on() {
        let (turn, done) = (Turn::new(), AtomicBool::new(false));
        let (mut slices, mut steps) = (0, 0);
        thread::scope(|scope| {
            let background = scope.spawn(|| {
                let mut slices = 0;
                let mut slice = turn.slice();
                while !done.load(SeqCst) {
                    thread::sleep(SLICE);
                    slices += 1;
                    slice.pause();
                }
                slices
            });
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(600) {
                let step = turn.step();
                thread::sleep(STEP);
                steps += 1;
                drop(step);
            }
            done.store(true, SeqCst);
            slices = background.join().unwrap();
        });
        // In 600 ms, up to 37 slices and 225 steps; a busy machine has fewer of both.
        let (background, generation) = (SLICE * slices, STEP * steps);
        assert!(slices >= 5, "{slices} slices");
        assert!(background < generation, "{slices} slices, {steps} steps");
    }

    #[test]
    fn one_slice_at_a_time() {
        let (turn, inside) = (Turn::new(), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let _slice = turn.slice();
                        assert!(!inside.swap(true, SeqCst), "two slices at once");
                        thread::yield_now();
                        inside.store(false, SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn steps_of_several_engines_run_side_by_side() {
        let turn = Turn::new();
        let (_one, _other) = (turn.step(), turn.step());
        assert_eq!(lock(&turn.state).steps, 2);
    }
}
