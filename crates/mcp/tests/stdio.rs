//! Servers that are processes: what they can do, and what they do wrong.

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{connected, is_connected, one, pace, status, stdio, until};
use vllm_mcp::{CallError, McpClient, OfferError, Pace, Selection, ServerState, ServerTools, ToolOutcome};

async fn text(client: &McpClient, tool: &str, arguments: Value) -> String {
    let outcome = client.call(tool, arguments, None).await.unwrap();
    assert!(!outcome.is_error, "{outcome:?}");
    outcome.text
}

#[tokio::test]
async fn tools_are_listed_page_by_page() {
    let client = one(stdio("good")).await;
    let tools = client.tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let wanted = [
        "s__cancelled",
        "s__die",
        "s__echo",
        "s__environment",
        "s__fail",
        "s__grow",
        "s__long",
        "s__nonsense",
        "s__picture",
        "s__protocol_error",
        "s__refuse",
        "s__sleep",
        "s__where",
    ];
    assert_eq!(names, wanted, "neither the risky one nor the one with spaces");
    let echo = &tools[2];
    assert_eq!((echo.server.as_str(), echo.tool.as_str(), echo.description.as_str()), ("s", "echo", "does echo"));
    assert_eq!(echo.parameters["required"], json!(["text"]));
    let server = status(&client);
    assert_eq!((server.tools, server.transport, server.error), (13, "stdio", None));
    client.shutdown().await;
    assert_eq!((client.tools().len(), status(&client).state), (0, ServerState::Disconnected));
}

#[tokio::test]
async fn calls_are_answered() {
    let client = one(stdio("good")).await;
    let ok = |text: &str| Ok(ToolOutcome { text: text.into(), is_error: false });
    let tool_failed = |text: &str| Ok(ToolOutcome { text: text.into(), is_error: true });
    let bad = |tool: &str, problem: &str| Err(CallError::BadArguments { tool: tool.into(), problem: problem.into() });
    let cases = [
        ("s__echo", json!({ "text": "hällo" }), ok("hällo")),
        ("s__picture", json!(null), ok("{\"type\":\"image\",\"mime_type\":\"image/png\",\"bytes\":3}\nlook")),
        ("s__fail", json!({}), tool_failed("it did not work")),
        ("s__protocol_error", json!({}), tool_failed("broken inside")),
        ("s__refuse", json!({}), bad("s__refuse", "no such thing")),
        ("s__echo", json!({}), bad("s__echo", "missing arguments: text")),
        ("s__echo", json!([]), bad("s__echo", "the arguments are an array: they must be an object")),
        ("s__none", json!({}), Err(CallError::UnknownTool("s__none".into()))),
        ("t__echo", json!({}), Err(CallError::UnknownTool("t__echo".into()))),
        ("echo", json!({}), Err(CallError::UnknownTool("echo".into()))),
    ];
    for (tool, arguments, wanted) in cases {
        assert_eq!(client.call(tool, arguments, None).await, wanted, "{tool}");
    }
    let refused = client.call("s__run_command", json!({}), None).await;
    assert!(matches!(&refused, Err(CallError::Refused { .. })), "{refused:?}");
    assert_eq!(text(&client, "s__long", json!({ "bytes": 1 << 20 })).await.len(), 1 << 20);
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let client = one(stdio("good")).await;
    let start = Instant::now();
    let answer = client.call("s__nonsense", json!({}), Some(Duration::from_secs(2))).await;
    let none = ToolOutcome { text: String::new(), is_error: false };
    assert!(answer.is_err() || answer == Ok(none), "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(text(&client, "s__echo", json!({ "text": "still here" })).await, "still here");
}

#[tokio::test]
async fn consent_and_allow_lists_decide() {
    let file =
        |entry: Value, high_risk: Value| json!({ "servers": { "s": entry }, "allowed_high_risk_tools": high_risk });
    for name in ["run_command", "s__run_command"] {
        let client = connected(&file(stdio("good"), json!([name])), pace()).await;
        assert_eq!(text(&client, "s__run_command", json!({})).await, "called run_command");
    }
    let mut entry = stdio("good");
    entry["allowed_tools"] = json!(["echo", "run_command", "missing"]);
    let client = connected(&file(entry, json!([])), pace()).await;
    assert_eq!(client.tools().iter().map(|tool| tool.tool.as_str()).collect::<Vec<_>>(), ["echo"]);
    for tool in ["s__fail", "s__run_command"] {
        let refused = client.call(tool, json!({}), None).await;
        assert!(matches!(&refused, Err(CallError::Refused { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn requests_are_offered_what_they_select() {
    let mut file =
        json!({ "servers": { "a": stdio("good"), "b": stdio("good"), "c": stdio("dead"), "d": stdio("hang") } });
    file["servers"]["d"]["enabled"] = json!(false);
    let client = connected(&file, pace()).await;
    let of = |server: &str, tools: Option<&[&str]>| ServerTools {
        server: server.into(),
        tools: tools.map(|tools| tools.iter().map(|&tool| tool.to_owned()).collect()),
    };
    let offered = |selection: Selection| {
        let offered = client.offer(&selection)?;
        Ok::<_, OfferError>(offered.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(offered(Selection::All).unwrap().len(), 26);
    assert_eq!(offered(Selection::Of(vec![])).unwrap().len(), 0);
    assert_eq!(offered(Selection::Of(vec![of("a", None)])).unwrap().len(), 13);
    let some = vec![of("b", Some(&["echo"])), of("a", Some(&["sleep", "echo", "echo"])), of("b", Some(&["fail"]))];
    assert_eq!(offered(Selection::Of(some)).unwrap(), ["a__echo", "a__sleep", "b__echo", "b__fail"]);
    assert_eq!(offered(Selection::Of(vec![of("x", None)])), Err(OfferError::UnknownServer("x".into())));
    for tool in ["none", "run_command"] {
        let wanted = OfferError::UnknownTool { server: "a".into(), tool: tool.into() };
        assert_eq!(offered(Selection::Of(vec![of("a", Some(&[tool]))])), Err(wanted));
    }
    for server in ["c", "d"] {
        let refused = offered(Selection::Of(vec![of("a", None), of(server, None)]));
        assert!(matches!(&refused, Err(OfferError::Unavailable { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_process_gets_little_of_our_environment() {
    let folder = tempfile::tempdir().unwrap();
    let mut entry = stdio("good");
    entry["env"] = json!({ "KEY": "value", "HOME": "/elsewhere" });
    entry["cwd"] = json!(folder.path());
    let client = one(entry).await;
    let environment: Value = serde_json::from_str(&text(&client, "s__environment", json!({})).await).unwrap();
    // What Python, and the script that may stand before it, add by themselves.
    let own = ["LC_CTYPE", "PYENV", "PWD", "OLDPWD", "SHLVL", "_"];
    let mut names: Vec<&str> = environment.as_object().unwrap().keys().map(String::as_str).collect();
    names.retain(|name| !own.iter().any(|own| name.starts_with(own)));
    let known = ["PATH", "HOME", "LANG", "TMPDIR", "KEY"];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "something was there to be kept back");
    assert_eq!((&environment["KEY"], &environment["HOME"]), (&json!("value"), &json!("/elsewhere")));
    let there = text(&client, "s__where", json!({})).await;
    assert_eq!(Path::new(&there), folder.path().canonicalize().unwrap());
}

#[tokio::test]
async fn calls_run_side_by_side() {
    let client = one(stdio("good")).await;
    let start = Instant::now();
    let calls = (0..20).map(|_| client.call("s__sleep", json!({ "seconds": 2 }), None));
    for outcome in futures_util::future::join_all(calls).await {
        assert_eq!(outcome.unwrap().text, "slept 2");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn slow_calls_end_in_time_and_are_cancelled() {
    let mut entry = stdio("good");
    entry["timeout"] = json!(0.3);
    let client = one(entry).await;
    let slow = json!({ "seconds": 600 });
    let timeout = |limit| Err(CallError::Timeout { tool: "s__sleep".into(), limit });
    let (configured, asked) = (Duration::from_millis(300), Duration::from_millis(200));
    assert_eq!(client.call("s__sleep", slow.clone(), None).await, timeout(configured));
    assert_eq!(client.call("s__sleep", slow.clone(), Some(asked)).await, timeout(asked));
    // One that nobody waits for.
    let dropped = tokio::time::timeout(asked, client.call("s__sleep", slow, Some(Duration::from_secs(600)))).await;
    assert!(dropped.is_err());
    let start = Instant::now();
    while text(&client, "s__cancelled", json!({})).await != "3" {
        assert!(start.elapsed() < support::PATIENCE, "the server was not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_tool_has_so_many_calls_a_minute() {
    let pace = Pace { calls_per_minute: 3, ..pace() };
    let client = connected(&json!({ "servers": { "s": stdio("good") } }), pace).await;
    for _ in 0..3 {
        text(&client, "s__echo", json!({ "text": "x" })).await;
    }
    let limited = client.call("s__echo", json!({ "text": "x" }), None).await;
    assert!(
        matches!(&limited, Err(CallError::RateLimited { retry_after, .. }) if retry_after.as_secs() > 50),
        "{limited:?}"
    );
    text(&client, "s__where", json!({})).await;
}

#[tokio::test]
async fn new_tools_are_seen() {
    let client = one(stdio("good")).await;
    for count in 1..=3 {
        text(&client, "s__grow", json!({})).await;
        until(&client, "grown", |status| status.tools == 13 + count).await;
    }
    assert_eq!(text(&client, "s__grown_2", json!({})).await, "called grown_2");
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_comes_back() {
    let client = one(stdio("good")).await;
    for _ in 0..3 {
        let start = Instant::now();
        let (died, other) = tokio::join!(
            client.call("s__die", json!({}), None),
            client.call("s__sleep", json!({ "seconds": 600 }), None)
        );
        for failed in [died, other] {
            assert!(matches!(&failed, Err(CallError::Failed { .. })), "{failed:?}");
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        let lost = until(&client, "lost", |status| status.state == ServerState::Error).await;
        assert!(lost.error.as_ref().unwrap().contains("exit status: 3"), "{lost:?}");
        let call = client.call("s__echo", json!({ "text": "x" }), None).await;
        assert!(matches!(&call, Err(CallError::Unavailable { .. } | CallError::Failed { .. }) | Ok(_)), "{call:?}");
        until(&client, "back", is_connected).await;
        assert_eq!(text(&client, "s__echo", json!({ "text": "back" })).await, "back");
    }
}

#[tokio::test]
async fn servers_that_never_get_ready_do_not_hurt_the_others() {
    let hanging = Pace { connect: Duration::from_secs(6), ..pace() };
    let cases = [
        (json!({ "command": "no-such-program-anywhere" }), "cannot start \"no-such-program-anywhere\": No such file"),
        (json!({ "command": "/etc/passwd" }), "cannot start \"/etc/passwd\": Permission denied"),
        (json!({ "command": "python3", "cwd": "/no/such/folder" }), "cannot start"),
        (json!({ "command": "true" }), "the process ended (exit status: 0) before it was ready"),
        (stdio("dead"), "the process ended (exit status: 7) before it was ready"),
        (stdio("hang"), "not ready within 6s"),
        (stdio("noise"), "not ready within 6s"),
        (stdio("endless"), "tools/list: more than 100 pages"),
        (json!({ "url": "http://127.0.0.1:9/mcp" }), "Connection refused"),
    ];
    let mut servers = json!({ "good": stdio("good") });
    for (number, (entry, _)) in cases.iter().enumerate() {
        servers[format!("bad{number}")] = entry.clone();
    }
    let start = Instant::now();
    let client = connected(&json!({ "servers": servers }), hanging).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(text(&client, "good__echo", json!({ "text": "x" })).await, "x");
    for (number, (_, wanted)) in cases.iter().enumerate() {
        let status = client.servers().into_iter().find(|server| server.name == format!("bad{number}")).unwrap();
        let error = status.error.clone().unwrap_or_default();
        assert!(error.contains(wanted) && status.state != ServerState::Connected, "{wanted}: {status:?}");
        let call = client.call(&format!("bad{number}__echo"), json!({ "text": "x" }), None).await;
        assert!(matches!(&call, Err(CallError::Unavailable { .. })), "{call:?}");
    }
    let start = Instant::now();
    client.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn garbage_between_messages_is_passed_over() {
    let client = one(stdio("garbage")).await;
    assert_eq!(text(&client, "s__echo", json!({ "text": "x" })).await, "x");
}

#[tokio::test]
async fn a_flood_ends_the_connection() {
    let client = McpClient::start_with(support::config(&json!({ "servers": { "s": stdio("flood") } })), pace());
    let lost = until(&client, "cut off", |status| status.state == ServerState::Error).await;
    assert!(lost.error.is_some());
    client.shutdown().await;
}

#[tokio::test]
async fn servers_of_the_newest_protocol_are_greeted_their_way() {
    let client = one(stdio("modern")).await;
    assert_eq!(status(&client).error, None);
    assert_eq!(text(&client, "s__echo", json!({ "text": "x" })).await, "x");
}

#[cfg(target_os = "linux")]
mod processes {
    use super::*;

    /// Waits until none of these processes exists, not even as a zombie.
    fn gone(ids: &[String]) {
        let start = Instant::now();
        let exists = |id: &&String| Path::new("/proc").join(id).exists();
        while let Some(id) = ids.iter().find(exists) {
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // A grandchild's zombie is init's to collect, which containers may lack.
            if state.contains("(sleep) Z") {
                return;
            }
            assert!(start.elapsed() < support::PATIENCE, "{id} lives: {state}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    async fn ids(path: &Path) -> Vec<String> {
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if !text.is_empty() {
                return text.split_whitespace().map(str::to_owned).collect();
            }
            assert!(start.elapsed() < support::PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_process_that_leaves_its_pipe_to_another_is_missed_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut entry = stdio("orphan");
        entry["args"].as_array_mut().unwrap().push(json!(folder.path().join("pids")));
        let client = one(entry).await;
        let orphans = ids(&folder.path().join("pids")).await;
        let died = client.call("s__die", json!({}), Some(support::PATIENCE)).await;
        assert!(matches!(&died, Err(CallError::Failed { .. })), "{died:?}");
        until(&client, "missed", |status| status.error.as_ref().is_some_and(|error| error.contains("status: 3"))).await;
        tokio::task::spawn_blocking(move || gone(&orphans)).await.unwrap();
    }

    #[tokio::test]
    async fn processes_end_with_the_client() {
        for mode in ["good", "hang", "noise", "orphan", "stubborn"] {
            for dropped in [false, true] {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("pids");
                let mut entry = stdio(mode);
                entry["args"].as_array_mut().unwrap().push(json!(file));
                let client = McpClient::start_with(support::config(&json!({ "servers": { "s": entry } })), pace());
                let ids = ids(&file).await;
                let start = Instant::now();
                if dropped {
                    drop(client);
                } else {
                    client.shutdown().await;
                }
                assert!(start.elapsed() < Duration::from_secs(15), "{mode}: {:?}", start.elapsed());
                tokio::task::spawn_blocking(move || gone(&ids)).await.unwrap();
            }
        }
    }
}
