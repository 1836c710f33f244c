//! Models by name, against a local server that plays the hub.

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use common::{safetensors_bytes, sha256};
use server::{COMMIT, Hub};
use vllm_checkpoint::Checkpoint;
use vllm_checkpoint::hub::{self, HubOptions, Progress};

const WEIGHTS: usize = 3000;

fn weights() -> Vec<u8> {
    safetensors_bytes(&[("w", "U8", &[WEIGHTS], (0..WEIGHTS).map(|i| (i % 251) as u8).collect())])
}

fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", b"# not wanted".to_vec()),
        ("config.json", br#"{"architectures": ["X"]}"#.to_vec()),
        ("model.safetensors", weights()),
        ("onnx/model.json", b"{}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
    ]
}

/// A hub with a model, and an empty cache.
struct World {
    hub: Hub,
    cache: tempfile::TempDir,
}

impl World {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self { hub: Hub::start(files), cache: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            endpoint: Some(self.hub.endpoint.clone()),
            cache: Some(self.cache.path().to_owned()),
            ..HubOptions::default()
        }
    }

    /// The model's path and what was told on the way.
    fn resolve_with(&self, model: &str, options: &HubOptions) -> (Result<PathBuf, String>, Vec<String>) {
        let mut told = Vec::new();
        let path = hub::resolve(model, options, &mut |progress| {
            told.push(match progress {
                Progress::Plan { files, bytes, present } => format!("plan {files} {bytes} {present}"),
                Progress::Bytes { file, done, size, overall } => format!("bytes {file} {done}/{size} {overall}"),
                Progress::Retry { file, .. } => format!("retry {file}"),
                Progress::Unreachable { .. } => "unreachable".to_owned(),
                other => panic!("{other:?}"),
            });
        });
        (path.map_err(|e| e.to_string()), told)
    }

    fn resolve(&self, model: &str) -> Result<PathBuf, String> {
        self.resolve_with(model, &self.options()).0
    }

    fn repo(&self) -> PathBuf {
        self.cache.path().join("models--org--model")
    }
}

fn api() -> String {
    "/api/models/org/model/revision/main?blobs=true".to_owned()
}

fn file(name: &str) -> String {
    format!("/org/model/resolve/{COMMIT}/{name}")
}

#[test]
fn a_model_is_fetched_once_into_the_standard_layout() {
    let world = World::new(&model());
    let (path, told) = world.resolve_with("org/model", &world.options());
    let path = path.unwrap();
    assert_eq!(path, world.repo().join("snapshots").join(COMMIT));
    let wanted = [
        api(),
        file("config.json"),
        file("model.safetensors"),
        "/cdn/model.safetensors".into(),
        file("tokenizer.json"),
    ];
    assert_eq!(world.hub.requests(), wanted, "nothing that a model does not need");
    let total = weights().len() + 24 + 2;
    assert_eq!(told[0], format!("plan 3 {total} 0"));
    assert_eq!(told.last().unwrap(), &format!("bytes tokenizer.json 2/2 {total}"));

    // The layout that other tools read.
    assert_eq!(fs::read_to_string(world.repo().join("refs/main")).unwrap(), COMMIT);
    let link = fs::read_link(path.join("model.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(sha256(&weights())));
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    let blobs: Vec<_> = fs::read_dir(world.repo().join("blobs")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(blobs.iter().all(|blob| !blob.to_string_lossy().contains('.')), "nothing unfinished: {blobs:?}");
    assert_eq!(Checkpoint::open(&path).unwrap().tensor_names().collect::<Vec<_>>(), ["w"]);

    // Again: one question, no file.
    let (again, told) = world.resolve_with("org/model", &world.options());
    assert_eq!(again.unwrap(), path);
    assert_eq!(world.hub.requests(), [api()]);
    assert_eq!(told, [format!("plan 3 {total} {total}")]);
    // By commit: no question at all.
    assert_eq!(world.resolve(&format!("org/model@{COMMIT}")).unwrap(), path);
    assert_eq!(world.hub.requests(), [""; 0]);
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_stopped() {
    let world = World::new(&model());
    world.hub.set(|hub| hub.break_off = vec![700, 500]);
    let (path, told) = world.resolve_with("org/model", &world.options());
    assert_eq!(fs::read(path.unwrap().join("model.safetensors")).unwrap(), weights());
    assert_eq!(told.iter().filter(|t| *t == "retry model.safetensors").count(), 2, "{told:?}");
    let requests = world.hub.requests();
    let transfers: Vec<_> = requests.iter().filter(|r| r.starts_with("/cdn/")).collect();
    assert_eq!(transfers, ["/cdn/model.safetensors", "/cdn/model.safetensors @700-", "/cdn/model.safetensors @1200-"]);
}

#[test]
fn a_later_call_resumes_what_an_earlier_one_left() {
    let cases = [
        ("a beginning", weights()[..1000].to_vec(), false, vec!["/cdn/model.safetensors @1000-"]),
        ("all of it, not yet renamed", weights(), false, vec![]),
        ("more than the file has", vec![7; 9000], false, vec!["/cdn/model.safetensors"]),
        (
            "a beginning, at a server without ranges",
            weights()[..1000].to_vec(),
            true,
            vec!["/cdn/model.safetensors @1000-"],
        ),
    ];
    for (case, left, ignores_ranges, wanted) in cases {
        let world = World::new(&model());
        world.hub.set(|hub| hub.ignores_ranges = ignores_ranges);
        let blobs = world.repo().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", sha256(&weights()))), left).unwrap();
        let path = world.resolve("org/model").expect(case);
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights(), "{case}");
        let requests = world.hub.requests();
        assert_eq!(requests.iter().filter(|r| r.starts_with("/cdn/")).collect::<Vec<_>>(), wanted, "{case}");
    }
}

#[test]
fn what_arrives_damaged_is_thrown_away() {
    let world = World::new(&model());
    world.hub.set(|hub| hub.wrong_hash = Some("ab".repeat(32)));
    let error = world.resolve("org/model").unwrap_err();
    assert!(error.starts_with("org/model/model.safetensors: SHA-256 is "), "{error}");
    let blobs = fs::read_dir(world.repo().join("blobs")).unwrap().flatten();
    assert!(blobs.into_iter().all(|blob| blob.metadata().unwrap().len() < 100), "the damaged blob is gone");
    // A beginning of another file is found out, too, and the next call starts afresh.
    let world = World::new(&model());
    let blobs = world.repo().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", sha256(&weights()))), [9; 500]).unwrap();
    assert!(world.resolve("org/model").unwrap_err().contains("the download was discarded, try again"));
    assert!(world.resolve("org/model").is_ok());
}

#[test]
fn refusals_say_what_to_do() {
    let token = |token: Option<&str>| token.map(str::to_owned);
    let gated = |hub: &mut server::Behaviour| hub.token = Some("hf_right");
    type Change = fn(&mut server::Behaviour);
    let cases: [(&str, &str, Change, Option<&str>, &str); 6] = [
        (
            "no such repository",
            "org/nothing",
            |_| (),
            None,
            "org/nothing: no such folder here, and the hub has no such model at revision main",
        ),
        ("no such revision", "org/model@v9", |_| (), None, "the hub has no such model at revision v9"),
        ("gated, no token", "org/model", gated, None, "accept the model's terms on its page and set HF_TOKEN"),
        ("gated, another's token", "org/model", gated, Some("hf_wrong"), "the hub refuses access with this HF_TOKEN"),
        ("a hub that is down", "org/model", |hub| hub.down = Some(503), None, "the hub answered 503"),
        ("no files", "org/model", |hub| hub.files.clear(), None, "org/model: holds neither *.safetensors nor *.gguf"),
    ];
    for (case, model_name, change, with, wanted) in cases {
        let world = World::new(&model());
        world.hub.set(change);
        let options = HubOptions { token: token(with), ..world.options() };
        let error = world.resolve_with(model_name, &options).0.expect_err(case);
        assert!(error.contains(wanted), "{case}: {error}");
        assert_eq!(error.lines().count(), 1, "{case}: {error}");
    }
    let world = World::new(&model());
    world.hub.set(gated);
    let options = HubOptions { token: token(Some("hf_right")), ..world.options() };
    assert!(world.resolve_with("org/model", &options).0.is_ok(), "the right token opens");
    let leaks: Vec<_> = world.hub.requests().into_iter().filter(|r| r.contains("with the token")).collect();
    assert_eq!(leaks, [""; 0], "no other host sees it");
    for nonsense in ["not a model", "/no/such/folder", "./nothing", "folder/nothing.gguf"] {
        let error = world.resolve(nonsense).unwrap_err();
        assert!(error.contains("no such file or folder"), "{nonsense}: {error}");
    }
}

#[test]
fn offline_uses_the_cache_and_says_what_it_lacks() {
    let world = World::new(&model());
    let offline = HubOptions { offline: true, ..world.options() };
    let error = world.resolve_with("org/model", &offline).0.unwrap_err();
    assert!(error.contains("org/model: offline (HF_HUB_OFFLINE)") && error.contains("lacks this model"), "{error}");
    let path = world.resolve("org/model").unwrap();
    world.hub.requests();
    assert_eq!(world.resolve_with("org/model", &offline), (Ok(path.clone()), vec![]));
    assert_eq!(world.hub.requests(), [""; 0], "no request");

    // A hub that does not answer: the cache does.
    world.hub.set(|hub| hub.down = Some(500));
    assert_eq!(world.resolve_with("org/model", &world.options()), (Ok(path.clone()), vec!["unreachable".to_owned()]));

    // The blob behind a link is gone.
    fs::remove_file(path.join("model.safetensors").canonicalize().unwrap()).unwrap();
    let error = world.resolve_with("org/model", &offline).0.unwrap_err();
    assert!(error.contains("lacks the weights"), "{error}");
    world.hub.set(|hub| hub.down = None);
    assert_eq!(world.resolve("org/model"), Ok(path), "and is fetched again");
}

#[test]
fn only_the_shards_of_the_index_are_fetched_and_missed() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#.to_vec();
    let shard = |name: &str| safetensors_bytes(&[(name, "U8", &[200], vec![name.len() as u8; 200])]);
    let world = World::new(&[
        ("config.json", br#"{"architectures": ["X"]}"#.to_vec()),
        ("consolidated.safetensors", weights()),
        ("model-1.safetensors", shard("a")),
        ("model-2.safetensors", shard("bb")),
        ("model.safetensors.index.json", index),
    ]);
    let path = world.resolve("org/model").unwrap();
    assert!(!path.join("consolidated.safetensors").exists());
    assert_eq!(Checkpoint::open(&path).unwrap().tensor_names().collect::<Vec<_>>(), ["a", "bb"]);
    fs::remove_file(path.join("model-2.safetensors")).unwrap();
    let offline = HubOptions { offline: true, ..world.options() };
    let error = world.resolve_with("org/model", &offline).0.unwrap_err();
    assert!(error.contains("lacks model-2.safetensors; run once online"), "{error}");
}

#[test]
fn one_gguf_file_of_many_can_be_named() {
    let gguf = fs::read(common::fixture("qwen3.gguf")).unwrap();
    let world = World::new(&[("m-Q4_0.gguf", gguf.clone()), ("m-Q8_0.gguf", gguf), ("config.json", b"{}".to_vec())]);
    for reference in ["org/model:m-Q8_0.gguf", "org/model:q8_0"] {
        let path = world.resolve(reference).unwrap();
        assert_eq!(path, world.repo().join("snapshots").join(COMMIT).join("m-Q8_0.gguf"), "{reference}");
        assert!(Checkpoint::open(&path).unwrap().is_gguf(), "{reference}");
    }
    let error = world.resolve("org/model").unwrap_err();
    assert!(error.contains("name one as org/model:FILE: m-Q4_0.gguf, m-Q8_0.gguf"), "{error}");
    let offline = HubOptions { offline: true, ..world.options() };
    assert!(world.resolve_with("org/model:Q8_0", &offline).0.is_ok());
    assert!(world.resolve_with("org/model:Q4_0", &offline).0.unwrap_err().contains("lacks the weights"));
}

#[test]
fn a_path_that_exists_is_itself() {
    let world = World::new(&[]);
    let here = world.cache.path().to_str().unwrap();
    assert_eq!(world.resolve(here), Ok(world.cache.path().to_owned()));
    assert_eq!(world.hub.requests(), [""; 0]);
}
