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
const IDLE: Duration = Duration::from_millis(10);

/// For a wait that is ended by others.
const LONG: Duration = Duration::from_secs(1);

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
    /// Steps that wait for the end of a slice.
    waiting: usize,
    /// When the last of them ended.
    last_step: Option<Instant>,
    /// Whether a slice is under way.
    slice: bool,
    /// Slices whose time has come, for which no new step is begun.
    claims: usize,
    /// When the next slice's time comes if somebody generates.
    due: Option<Instant>,
}

/// What whoever wants to begin a slice does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Begin,
    /// Let no new step begin.
    Claim,
    /// For so long, or until something changes.
    Wait(Duration),
}

impl State {
    fn next(&self, now: Instant, claimed: bool) -> Next {
        let due_at = self.due.unwrap_or(now);
        // Whoever has waited for the end of a slice generates, however long ago its last step was.
        let quiet_at = if self.waiting > 0 { due_at } else { self.last_step.map_or(now, |end| end + IDLE) };
        let free = !self.slice && self.steps == 0;
        if free && (claimed || self.waiting == 0 && now >= quiet_at) {
            Next::Begin
        } else if claimed || self.slice {
            // The end of what is in the way is told.
            Next::Wait(LONG)
        } else if now >= due_at {
            Next::Claim
        } else {
            Next::Wait(if free { due_at.min(quiet_at) } else { due_at } - now)
        }
    }
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
        let state = State { steps: 0, waiting: 0, last_step: None, slice: false, claims: 0, due: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Begins a step of generation, after the slice that is under way.
    pub fn step(&self) -> Step<'_> {
        let taken = |state: &mut State| state.slice || state.claims > 0;
        let mut state = lock(&self.state);
        state.waiting += 1;
        state = self.changed.wait_while(state, taken).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state.steps += 1;
        Step(self)
    }

    /// Begins a slice when its time has come.
    pub fn slice(&self) -> Slice<'_> {
        let mut state = lock(&self.state);
        let mut claimed = false;
        loop {
            let pause = match state.next(Instant::now(), claimed) {
                Next::Begin => break,
                Next::Claim => {
                    claimed = true;
                    state.claims += 1;
                    continue;
                }
                Next::Wait(pause) => pause,
            };
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
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

    #[test]
    fn a_step_that_waited_for_a_slice_goes_before_the_next() {
        let turn = Turn::new();
        let stepped = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut slice = turn.slice();
            scope.spawn(|| {
                let _step = turn.step();
                stepped.store(true, SeqCst);
            });
            while lock(&turn.state).waiting == 0 {
                thread::yield_now();
            }
            // So that the next slice is due later than the step needs to wake up.
            slice.start -= Duration::from_millis(100);
            slice.pause();
            assert!(stepped.load(SeqCst));
        });
    }

    #[test]
    fn slices_begin_when_nobody_generates_or_when_they_are_due() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let idle = || State { steps: 0, waiting: 0, last_step: None, slice: false, claims: 0, due: None };
        let busy = || State { last_step: Some(now - ms(1)), ..idle() };
        // (name, state, whether there is a claim, what is next)
        let cases = [
            ("nobody generates", idle(), false, Next::Begin),
            (
                "nobody has for a while",
                State { last_step: Some(now - IDLE), due: Some(now + ms(90)), ..idle() },
                false,
                Next::Begin,
            ),
            (
                "a step waits, and not due",
                State { waiting: 1, last_step: Some(now - ms(500)), due: Some(now + ms(90)), ..idle() },
                false,
                Next::Wait(ms(90)),
            ),
            ("a step waits, and due", State { waiting: 1, due: Some(now), ..idle() }, false, Next::Claim),
            ("another slice", State { slice: true, ..idle() }, false, Next::Wait(LONG)),
            ("between two steps, and due", State { due: Some(now), ..busy() }, false, Next::Claim),
            ("between two steps, and not due", State { due: Some(now + ms(5)), ..busy() }, false, Next::Wait(ms(5))),
            (
                "between two steps, perhaps the last",
                State { due: Some(now + ms(90)), ..busy() },
                false,
                Next::Wait(IDLE - ms(1)),
            ),
            (
                "in a step, and not due",
                State { steps: 1, due: Some(now + ms(90)), ..busy() },
                false,
                Next::Wait(ms(90)),
            ),
            ("claimed, in a step", State { steps: 1, claims: 1, ..busy() }, true, Next::Wait(LONG)),
            ("claimed, and the step has ended", State { claims: 1, ..busy() }, true, Next::Begin),
            ("claimed, and another was faster", State { slice: true, claims: 1, ..busy() }, true, Next::Wait(LONG)),
        ];
        for (name, state, claimed, wanted) in cases {
            assert_eq!(state.next(now, claimed), wanted, "{name}");
        }
    }

    #[test]
    fn a_slice_that_has_ended_is_due_again_after_three_times_its_length() {
        let turn = Turn::new();
        let slice = turn.slice();
        thread::sleep(Duration::from_millis(5));
        let start = slice.start;
        drop(slice);
        let due = lock(&turn.state).due.unwrap();
        assert!(due - start >= 4 * Duration::from_millis(5), "{:?}", due - start);
    }

    #[test]
    fn neither_side_starves() {
        let (turn, done) = (Turn::new(), AtomicBool::new(false));
        thread::scope(|scope| {
            let background = scope.spawn(|| {
                let mut slice = turn.slice();
                for _ in 0..10 {
                    thread::sleep(Duration::from_millis(1));
                    slice.pause();
                }
                done.store(true, SeqCst);
            });
            let mut steps = 0;
            while !done.load(SeqCst) {
                let _step = turn.step();
                thread::sleep(Duration::from_millis(1));
                steps += 1;
            }
            background.join().unwrap();
            assert!(steps > 0);
        });
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
