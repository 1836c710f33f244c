//! The pool: every task once, panics that reach the caller, nesting, and callers that take turns.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use vllm_kernels_cpu::{PinError, Pool};

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads);
        for tasks in [0, 1, 2, 3, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
        }
    }
}

/// Many short jobs, with pauses in which the workers fall asleep: a lost wake-up or an early return would show.
#[test]
fn jobs_follow_one_another_closely_and_after_pauses() {
    let pool = Pool::new(4);
    let mut data = vec![0usize; 64];
    for round in 1..=3000 {
        pool.run_chunks(&mut data, 3, |_, chunk| chunk.iter_mut().for_each(|v| *v += 1));
        assert!(data.iter().all(|&v| v == round), "round {round}");
        if round % 500 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Tasks that wait make the system put the other workers on the cores: all of them must join.
#[test]
fn all_threads_take_part() {
    let pool = Pool::new(3);
    assert_eq!(pool.threads(), 3);
    let seen = Mutex::new(std::collections::HashSet::new());
    for _ in 0..20 {
        pool.run(12, |_| {
            seen.lock().unwrap().insert(thread::current().id());
            thread::sleep(Duration::from_millis(2));
        });
    }
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let pool = Pool::new(3);
    for bad in [0, 7, 99] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, |i| {
                if i == bad {
                    panic!("task {i} is bad");
                }
            });
        }));
        let message = *result.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(message, format!("task {bad} is bad"));
        let sum = AtomicUsize::new(0);
        pool.run(100, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 4950, "after task {bad}'s panic");
    }
}

#[test]
fn a_run_inside_a_task_runs_inline() {
    let (pool, other) = (Pool::new(3), Pool::new(2));
    let sum = AtomicUsize::new(0);
    pool.run(10, |_| {
        let outer = thread::current().id();
        for inner in [&pool, &other] {
            inner.run(10, |i| {
                assert_eq!(thread::current().id(), outer);
                sum.fetch_add(i, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(sum.into_inner(), 10 * 2 * 45);
}

#[test]
fn callers_on_several_threads_take_turns() {
    let pool = Pool::new(2);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let sum = AtomicUsize::new(0);
                    pool.run(16, |i| {
                        sum.fetch_add(i, Ordering::Relaxed);
                    });
                    assert_eq!(sum.into_inner(), 120);
                }
            });
        }
    });
}

#[test]
fn no_threads_asked_means_one_for_each_core() {
    let pool = Pool::new(0);
    let cores = thread::available_parallelism().unwrap().get();
    assert!((1..=cores).contains(&pool.threads()), "{} threads on {cores} cores", pool.threads());
}

/// Where each thread of a pool may run, by the system's own account.
#[cfg(target_os = "linux")]
#[test]
fn pinned_threads_have_a_core_each() {
    let allowed = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
    };
    let too_many = thread::spawn(|| Pool::pinned(100_000).map(drop)).join().unwrap();
    assert!(matches!(too_many, Err(PinError::Cores { threads: 100_000, .. })), "{too_many:?}");
    // On a thread of its own: it stays where it was pinned.
    thread::spawn(move || {
        let pool = Pool::pinned(0).unwrap();
        let seen = Mutex::new(std::collections::BTreeMap::new());
        for _ in 0..1000 {
            pool.run(pool.threads() * 4, |_| {
                seen.lock().unwrap().insert(format!("{:?}", thread::current().id()), allowed());
                thread::sleep(Duration::from_micros(20));
            });
            if seen.lock().unwrap().len() == pool.threads() {
                break;
            }
        }
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), pool.threads());
        let places: std::collections::BTreeSet<_> = seen.values().collect();
        assert_eq!(places.len(), pool.threads(), "{seen:?}");
        assert!(places.iter().all(|place| place.parse::<usize>().is_ok()), "one core each: {seen:?}");
    })
    .join()
    .unwrap();
}
