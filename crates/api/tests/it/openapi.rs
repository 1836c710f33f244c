//! The OpenAPI document against the routes that there are.

use axum::{body::Body, http::Request};
use serde_json::json;

use crate::support::server;

#[tokio::test]
async fn every_path_of_the_document_is_served() {
    let server = server("hi");
    let document = server.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path.replace(['{', '}'], ""));
            let reply = server.send(request.body(Body::from("{}")).unwrap()).await;
            // A route says what it misses; the router only that there is no route.
            let router = ["there is no ", " does not take "].iter().any(|words| {
                reply.body.contains(words)
                    && ["\"not_found\"", "\"method_not_allowed\""].iter().any(|c| reply.body.contains(c))
            });
            assert!(!router && reply.status != 405, "{method} {path}: {}", reply.body);
        }
    }
    // An example that can be sent as it is.
    assert_eq!(document["components"]["schemas"]["Model"]["examples"], json!(["tiny"]));
    assert!(server.get("/docs").await.body.contains("openapi.json"));
}
