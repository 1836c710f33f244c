//! Several models in one server.

use std::sync::Arc;

use serde_json::json;
use vllm_api::{model::LoadSpec, residency::Catalog};

use crate::support::{fake_model, server_of_models};

const CATALOG: &str = "
manager: {memory_budget_gb: 1}
models:
  - {names: [first, one], model: hello, preload: true, estimated_memory_gb: 1}
  - {name: second, model: world, estimated_memory_gb: 1}
  - {name: missing, model: '', estimated_memory_gb: 1}
";

fn server() -> crate::support::Router {
    let catalog = Catalog::from_yaml(CATALOG, &LoadSpec::named(&[])).unwrap();
    // A fake answers with what its spec calls the model's path.
    server_of_models(
        catalog,
        Arc::new(|spec, _| {
            anyhow::ensure!(!spec.model.is_empty(), "there is no such file");
            Ok(fake_model(&spec.model, spec.names))
        }),
    )
}

#[tokio::test]
async fn each_answers_to_its_names_and_is_loaded_when_asked_for() {
    let server = server();
    for (model, answer) in [("first", "hello"), ("second", "world"), ("one", "hello")] {
        let reply = server.chat(json!({ "model": model })).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(reply.json()["choices"][0]["message"]["content"], answer);
        let models = server.get("/v1/models").await.json();
        let models: Vec<_> =
            models["data"].as_array().unwrap().iter().map(|m| (m["id"].clone(), m["status"].clone())).collect();
        let (first, second) = if answer == "hello" { ("loaded", "unloaded") } else { ("unloaded", "loaded") };
        let wanted = [("first", first), ("one", first), ("second", second), ("missing", "unloaded")];
        assert_eq!(models, wanted.map(|(id, status)| (json!(id), json!(status))));
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_said() {
    let server = server();
    let reply = server.chat(json!({ "model": "third" })).await;
    assert_eq!(reply.status, 404);
    let wanted = "the model \"third\" does not exist: this server has first, one, second, missing";
    assert_eq!(reply.error(), (wanted.to_owned(), json!("model"), json!("model_not_found")));
    let reply = server.chat(json!({ "model": "missing" })).await;
    assert_eq!(reply.status, 503);
    let wanted = "the model \"missing\" could not be loaded: there is no such file";
    assert_eq!(reply.error(), (wanted.to_owned(), json!(null), json!("model_load_failed")));
}

#[tokio::test]
async fn operators_see_all_of_them() {
    let server = server();
    server.chat(json!({ "model": "first" })).await;
    let status = server.get("/v1/status").await.json();
    assert_eq!((&status["model"], &status["models"][0]["model"]), (&json!("first"), &json!("first")));
    let models = &status["model_manager"]["models"];
    assert_eq!((&models[0]["status"], &models[1]["status"]), (&json!("loaded"), &json!("unloaded")));
    assert_eq!(status["model_manager"]["memory_budget_gb"], 1.0);
    assert_eq!(server.get("/health").await.json()["status"], "ok");
    assert!(server.get("/v1/cache/stats").await.json()["models"]["first"].is_object());
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("vllm:num_requests_running{model_name=\"first\""), "{metrics}");
    assert!(metrics.contains("vllm_mlx_model_registry_entries 3"), "{metrics}");
}
