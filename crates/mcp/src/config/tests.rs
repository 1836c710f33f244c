use super::*;

const FOLDER: &str = "/etc/vllm";

fn variables(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| "s3cret".to_owned())
}

fn parse(text: &str) -> Result<McpConfig, String> {
    McpConfig::parse(text, false, FOLDER.as_ref(), &variables)
}

/// A configuration of one server `s`, from the inside of its JSON object.
fn one(entry: &str) -> Result<ServerConfig, String> {
    let mut config = parse(&format!(r#"{{ "servers": {{ "s": {{ {entry} }} }} }}"#))?;
    Ok(config.servers.remove("s").unwrap())
}

fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).collect()
}

fn command(name: &str) -> Endpoint {
    Endpoint::Stdio { command: name.into(), args: vec![], env: BTreeMap::new(), cwd: None }
}

fn url(address: &str) -> Endpoint {
    Endpoint::Http { url: address.into(), headers: BTreeMap::new() }
}

#[test]
fn a_whole_configuration() {
    let text = r#"{
        "servers": {
            "fs": {
                "transport": "stdio", "command": "npx", "args": ["-y", "server", "${TOKEN}"],
                "env": { "KEY": "${TOKEN}" }, "cwd": "work", "timeout": 2.5, "allowed_tools": ["read"]
            },
            "web": { "url": "https://example.org/mcp", "headers": { "Authorization": "Bearer ${TOKEN}" }, "enabled": false }
        },
        "max_tool_calls": 3, "default_timeout": 7, "allowed_high_risk_tools": ["fs__shell"]
    }"#;
    let config = parse(text).unwrap();
    assert_eq!((config.max_tool_calls, config.allowed_high_risk_tools), (3, vec!["fs__shell".to_owned()]));
    let fs = ServerConfig {
        endpoint: Endpoint::Stdio {
            command: "npx".into(),
            args: ["-y", "server", "s3cret"].map(String::from).into(),
            env: secrets(&[("KEY", "s3cret")]),
            cwd: Some("/etc/vllm/work".into()),
        },
        enabled: true,
        timeout: Duration::from_secs_f64(2.5),
        allowed_tools: Some(vec!["read".into()]),
    };
    assert_eq!(config.servers["fs"], fs);
    let web = &config.servers["web"];
    assert_eq!((web.enabled, web.timeout), (false, Duration::from_secs(7)));
    // Not connected to: its variables are nobody's business.
    let headers = secrets(&[("authorization", "Bearer ${TOKEN}")]);
    assert_eq!(web.endpoint, Endpoint::Http { url: "https://example.org/mcp".into(), headers });
}

#[test]
fn what_is_not_said_has_a_default() {
    let config = parse(r#"{ "mcpServers": { "s": { "command": "c" } } }"#).unwrap();
    assert_eq!((config.max_tool_calls, config.allowed_high_risk_tools.len()), (10, 0));
    let wanted =
        ServerConfig { endpoint: command("c"), enabled: true, timeout: Duration::from_secs(30), allowed_tools: None };
    assert_eq!(config.servers["s"], wanted);
    assert_eq!(parse(r#"{ "servers": {} }"#).unwrap().servers.len(), 0);
}

#[test]
fn yaml_says_the_same() {
    let text = "servers:\n  fs:\n    command: npx\n    env: { KEY: \"${TOKEN}\" }\nmax_tool_calls: 4\n";
    let yaml = |text: &str| McpConfig::parse(text, true, FOLDER.as_ref(), &variables);
    let json = r#"{ "servers": { "fs": { "command": "npx", "env": { "KEY": "${TOKEN}" } } }, "max_tool_calls": 4 }"#;
    assert_eq!(yaml(text), parse(json));
    let cases = [
        ("servers:\n  a: { command: x }\n  a: { command: y }\n", "a"),
        ("servers: {}\nmax_calls: 1\n", "max_calls"),
        ("servers:\n  a: { command: x, url_: y }\n", "url_"),
        ("servers: [", "line"),
        ("", "servers"),
    ];
    for (text, wanted) in cases {
        let error = yaml(text).unwrap_err();
        assert!(error.contains(wanted) && !error.contains('\n'), "{text:?}: {error:?}");
    }
}

#[test]
fn transports_are_told_apart() {
    let cases = [
        (r#""command": "c""#, command("c")),
        (r#""type": "stdio", "command": "c""#, command("c")),
        (r#""command": "bin/c""#, command("/etc/vllm/bin/c")),
        (r#""command": "/bin/c""#, command("/bin/c")),
        (r#""url": "http://localhost:1/mcp""#, url("http://localhost:1/mcp")),
        (r#""type": "http", "url": "https://h/""#, url("https://h/")),
        (r#""type": "streamable-http", "url": "https://h/${TOKEN}""#, url("https://h/s3cret")),
        (r#""enabled": false, "url": "${NONE}""#, url("${NONE}")),
    ];
    for (entry, wanted) in cases {
        assert_eq!(one(entry).map(|server| server.endpoint), Ok(wanted), "{entry}");
    }
}

#[test]
fn faults_are_named() {
    let cases = [
        ("42", "invalid type: integer"),
        ("{}", "servers (or mcpServers) is missing"),
        (r#"{ "servers": {}, "mcpServers": {} }"#, "servers and mcpServers mean the same"),
        (r#"{ "servers": {}, "tools": 1 }"#, "unknown field `tools`"),
        (r#"{ "servers": { "a": {}, "a": {} } }"#, "duplicate key \"a\""),
        (r#"{ "servers": {}, "max_tool_calls": 0 }"#, "max_tool_calls is 0"),
        (r#"{ "servers": {}, "default_timeout": -1 }"#, "default_timeout is -1"),
        (r#"{ "servers": { "a__b": { "command": "c" } } }"#, "server \"a__b\": the name must not hold __"),
        (r#"{ "servers": { "a_": { "command": "c" } } }"#, "nor end in _"),
        (r#"{ "servers": { "a b": { "command": "c" } } }"#, "letters, digits, - or _"),
        (r#"{ "servers": { "": { "command": "c" } } }"#, "1 to 64"),
    ];
    for (text, wanted) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn faults_of_a_server_are_named() {
    let cases = [
        ("", "it needs command (transport stdio) or url (transport http)"),
        (r#""command": "c", "url": "http://h/""#, "command and url together"),
        (r#""transport": "sse", "url": "http://h/sse""#, "transport sse was replaced by streamable HTTP"),
        (r#""transport": "tcp", "url": "http://h/""#, "unknown transport \"tcp\""),
        (r#""transport": "stdio""#, "transport stdio needs command"),
        (r#""transport": "http""#, "transport http needs url"),
        (r#""command": " ""#, "command is empty"),
        (r#""command": "c", "headers": {}"#, "headers does not go with transport stdio"),
        (r#""url": "http://h/", "env": {}"#, "env does not go with transport http"),
        (r#""url": "http://h/", "args": []"#, "args does not go with transport http"),
        (r#""command": "c", "disabled": true"#, "unknown field `disabled`"),
        (r#""command": "c", "command": "d""#, "duplicate field `command`"),
        (r#""command": "c", "env": { "A": "1", "A": "2" }"#, "duplicate key \"A\""),
        (r#""command": "c", "env": { "LD_PRELOAD": "x" }"#, "LD_PRELOAD is refused"),
        (r#""command": "c", "env": { "A": "${NONE}" }"#, "env: A: the environment variable NONE is not set"),
        (r#""command": "c", "args": ["a\u0000b"]"#, "a NUL character"),
        (r#""command": "c", "timeout": 0"#, "timeout is 0"),
        (r#""command": "c", "timeout": 1e9"#, "at most 3600 seconds"),
        (r#""url": "file:///etc/passwd""#, "must begin with http:// or https://"),
        (r#""url": "example.org""#, "must begin with http:// or https://"),
        (r#""url": "http://""#, "url \"http://\""),
        (r#""url": "https://user:pass@h/""#, "a user or password"),
        (r#""url": "http://h/", "headers": { "A B": "x" }"#, "\"A B\" is no header name"),
        (r#""url": "http://h/", "headers": { "A": "x\ny" }"#, "headers: A: not a value"),
        (r#""url": "http://h/", "headers": { "Host": "x" }"#, "Host is set by the protocol"),
        (r#""url": "http://h/", "headers": { "a": "1", "A": "2" }"#, "comes twice"),
    ];
    for (entry, wanted) in cases {
        let error = one(entry).unwrap_err();
        assert!(error.contains(wanted), "{entry}: {error}");
    }
}

#[test]
fn secrets_reach_neither_logs_nor_errors() {
    let entries = [
        r#""command": "c", "env": { "KEY": "${TOKEN}" }"#,
        r#""url": "http://h/", "headers": { "KEY": "${TOKEN}" }"#,
        r#""url": "ftp://${TOKEN}""#,
        r#""url": "http://h/", "headers": { "KEY": "${TOKEN}\n" }"#,
    ];
    for entry in entries {
        let said = format!("{:?}", one(entry));
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_anybody_may_write_is_refused() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mcp.yaml");
    fs::write(&path, "servers: {}").unwrap();
    for (mode, wanted) in [(0o600, true), (0o664, true), (0o666, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(McpConfig::read(&path).is_ok(), wanted, "{mode:o}");
    }
    fs::remove_file(&path).unwrap();
    let error = McpConfig::read(&path).unwrap_err().to_string();
    assert!(error.contains("mcp.yaml: cannot be read"), "{error}");
}
