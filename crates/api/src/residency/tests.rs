use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use serde_json::json;
use vllm_platform::testing::{FakeConfig, FakeRunner};
use vllm_scheduler::Engine;
use vllm_text::Tokenizer;

use super::*;

/// Loads fakes, and counts how often each was loaded.
#[derive(Default)]
struct Fakes {
    loads: Mutex<HashMap<String, usize>>,
    at_once: AtomicUsize,
}

impl Fakes {
    fn loader(self: &Arc<Self>) -> Loader {
        let this = Arc::clone(self);
        Arc::new(move |spec, _| {
            assert_eq!(this.at_once.fetch_add(1, SeqCst), 0, "two models are loaded at once");
            std::thread::sleep(Duration::from_millis(20));
            this.at_once.fetch_sub(1, SeqCst);
            *this.loads.lock().unwrap().entry(spec.model.clone()).or_default() += 1;
            anyhow::ensure!(spec.model != "bad", "no such file");
            let runner = || Ok(Box::new(FakeRunner::new(FakeConfig::default())) as Box<_>);
            let engine = Engine::start(runner, spec.engine)?;
            let tokenizer = json!({
                "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
                "post_processor": null, "decoder": null,
                "model": { "type": "BPE", "vocab": { "a": 0 }, "merges": [] },
            });
            let tokenizer = Tokenizer::from_json_bytes(tokenizer.to_string().as_bytes(), "test")?;
            Ok(ServedModel::new(spec.names, tokenizer, None, Default::default(), engine))
        })
    }

    fn loads(&self, model: &str) -> usize {
        self.loads.lock().unwrap().get(model).copied().unwrap_or(0)
    }
}

/// A model in use.
pub(crate) async fn lease() -> Lease {
    models("").0.lease("a").await.unwrap()
}

/// Models `a`, `b`, `c` of 1 GiB each, `p` pinned, and `bad`; `settings` go into the file's `manager`.
fn models(settings: &str) -> (Residency, Arc<Fakes>) {
    let text = format!(
        "manager: {{{settings}}}\nmodels:\n\
         - {{name: a, model: a, estimated_memory_gb: 1}}\n\
         - {{name: b, model: b, estimated_memory_gb: 1}}\n\
         - {{name: c, model: c, estimated_memory_gb: 1}}\n\
         - {{name: p, model: p, estimated_memory_gb: 1, pin: true}}\n\
         - {{name: bad, model: bad, estimated_memory_gb: 1}}\n"
    );
    let catalog = Catalog::from_yaml(&text, &LoadSpec::named(&[])).unwrap();
    let fakes = Arc::new(Fakes::default());
    (Residency::new(catalog, fakes.loader(), Arc::new(|_| {})), fakes)
}

fn loaded(models: &Residency) -> Vec<String> {
    models.loaded().iter().map(|model| model.names[0].clone()).collect()
}

#[tokio::test]
async fn a_model_is_loaded_once_for_all_who_wait() {
    let (models, fakes) = models("");
    let leases = futures_util::future::join_all((0..8).map(|_| models.lease("a"))).await;
    assert!(leases.iter().all(Result::is_ok));
    assert_eq!((fakes.loads("a"), models.status()[0].uses), (1, 8));
    drop(leases);
    assert_eq!(models.status()[0].uses, 0);
    let error = models.lease("nobody").await.unwrap_err();
    assert!(matches!(error, LeaseError::Unknown { .. }), "{error}");
    models.close().await;
    assert_eq!(models.lease("b").await.unwrap_err(), LeaseError::ShuttingDown);
}

#[tokio::test]
async fn a_load_goes_on_when_those_who_asked_go_away() {
    let (models, fakes) = models("");
    let _ = tokio::time::timeout(Duration::from_millis(1), models.lease("a")).await;
    drop(models.lease("a").await.unwrap());
    assert_eq!(fakes.loads("a"), 1);
}

#[tokio::test]
async fn a_load_that_fails_is_told_to_all_and_tried_again() {
    let (models, fakes) = models("");
    let (one, two) = tokio::join!(models.lease("bad"), models.lease("bad"));
    for result in [one, two] {
        assert_eq!(result.unwrap_err(), LeaseError::Failed { name: "bad".into(), why: "no such file".into() });
    }
    assert!(models.lease("bad").await.is_err());
    assert_eq!(fakes.loads("bad"), 2);
    assert!(models.status()[4].last_error.as_ref().unwrap().contains("no such file"));
}

#[tokio::test]
async fn the_least_recently_used_gives_way() {
    let (models, fakes) = models("memory_budget_gb: 2");
    drop(models.lease("a").await.unwrap());
    drop(models.lease("b").await.unwrap());
    drop(models.lease("a").await.unwrap());
    drop(models.lease("c").await.unwrap());
    assert_eq!(loaded(&models), ["a", "c"]);
    // The pinned one stays, whatever comes.
    drop(models.lease("p").await.unwrap());
    for name in ["a", "b", "c"] {
        drop(models.lease(name).await.unwrap());
        assert_eq!(loaded(&models), [name, "p"]);
    }
    assert_eq!((fakes.loads("p"), fakes.loads("b")), (1, 2));
}

#[tokio::test]
async fn models_in_use_are_waited_for_or_not() {
    let full = async |settings: &str| {
        let (models, fakes) = models(&format!("memory_budget_gb: 1, contention_policy: {{{settings}}}"));
        let lease = models.lease("a").await.unwrap();
        (models, fakes, lease)
    };
    let (fails, _, lease) = full("strategy: fail").await;
    let error = fails.lease("b").await.unwrap_err();
    assert_eq!(error, LeaseError::NoRoom { name: "b".into(), needed: 1 << 30, budget: 1 << 30 });
    drop(lease);
    drop(fails.lease("b").await.unwrap());

    let (gives_up, ..) = full("wait_timeout_s: 0.05").await;
    let (held, _, lease) = full("wait_timeout_s: 0.05").await;
    drop(gives_up);
    assert!(matches!(held.lease("b").await, Err(LeaseError::NoRoom { .. })));
    drop(lease);

    let (waits, _, lease) = full("strategy: wait").await;
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(lease);
    };
    let (result, ()) = tokio::join!(waits.lease("b"), release);
    assert!(result.is_ok());
    assert_eq!(loaded(&waits), ["b"]);

    let (preempts, _, lease) = full("strategy: preempt").await;
    drop(preempts.lease("b").await.unwrap());
    assert_eq!(loaded(&preempts), ["b"]);
    drop(lease);
    // Used by nobody now, though a lease of its former life has ended in between.
    drop(preempts.lease("a").await.unwrap());
    assert_eq!(preempts.status()[0].uses, 0);
}

#[tokio::test]
async fn what_is_too_large_for_the_budget_is_refused_at_once() {
    let (models, fakes) = models("memory_budget_gb: 0.5, contention_policy: {strategy: wait}");
    assert!(matches!(models.lease("a").await, Err(LeaseError::NoRoom { .. })));
    assert_eq!(fakes.loads("a"), 0);
}

#[tokio::test]
async fn idle_models_are_unloaded_and_come_back() {
    let (models, fakes) = models("idle_unload_seconds: 0.05");
    let held = models.lease("b").await.unwrap();
    drop(models.lease("a").await.unwrap());
    drop(models.lease("p").await.unwrap());
    let _ = tokio::time::timeout(Duration::from_millis(400), models.reap()).await;
    assert_eq!(loaded(&models), ["b", "p"], "one is in use, the other pinned");
    drop(held);
    drop(models.lease("a").await.unwrap());
    assert_eq!(fakes.loads("a"), 2);
}

#[tokio::test]
async fn a_dead_engine_is_replaced() {
    let (models, fakes) = models("");
    let lease = models.lease("a").await.unwrap();
    lease.engine.shutdown();
    lease.engine.stopped().await;
    drop(lease);
    drop(models.lease("a").await.unwrap());
    assert_eq!(fakes.loads("a"), 2);
}

#[test]
fn mistakes_in_a_catalogue_are_named() {
    let cases = [
        ("models: []", "models: there must be at least one"),
        ("models: [{name: a, model: x}, {name: a, model: y}]", "models[1].name: \"a\" is taken already"),
        ("models: [{model: x, mllm: true}]", "models[0].mllm: is not supported"),
        ("models: [{model: x, tool_call_parser: nobody}]", "models[0].tool_call_parser: \"nobody\" is unknown"),
        ("models: [{model: x, estimated_memory_gb: 3X}]", "models[0].estimated_memory_gb: unknown unit"),
        ("manager: {memory_budget_gb: -1}\nmodels: [{model: x}]", "manager.memory_budget_gb: is -1"),
        (
            "manager: {contention_policy: {strategy: fight}}\nmodels: [{model: x}]",
            "manager.contention_policy.strategy: \"fight\" is unknown",
        ),
        ("models: [{model: x, speed: 3}]", "speed"),
        ("models: [{name: x}]", "model"),
    ];
    for (text, wanted) in cases {
        let error = Catalog::from_yaml(text, &LoadSpec::named(&[])).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn a_catalogue_in_the_originals_words() {
    let text = "
manager:
  memory_budget: 80gb
  idle_unload_seconds: 600
  contention_policy: {strategy: wait_then_preempt, wait_timeout_s: 5}
models:
  - name: small
    path: org/small
    preload: true
    continuous_batching: true
  - {names: [big, large], source: org/big, kv_cache_memory: 2G, max_num_seqs: 4}
";
    let catalog = Catalog::from_yaml(text, &LoadSpec::named(&[])).unwrap();
    let contention = Contention { wait: Some(Duration::from_secs(5)), preempt: true };
    let idle_unload = Some(Duration::from_secs(600));
    assert_eq!(catalog.config, ResidencyConfig { budget: Some(80 << 30), idle_unload, contention });
    let [small, big] = catalog.entries.as_slice() else { panic!() };
    assert_eq!((small.spec.model.as_str(), small.preload, small.pinned), ("org/small", true, false));
    assert_eq!((big.names.as_slice(), big.preload), (["big".to_owned(), "large".to_owned()].as_slice(), false));
    assert_eq!((big.spec.load.kv_cache_bytes, big.spec.engine.max_num_seqs), (Some(2 << 30), 4));
}
