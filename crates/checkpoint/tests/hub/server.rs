//! A hub to download from: HTTP/1.1 on a local port, one request a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::common::sha256;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the hub behaves; tests change it while it runs.
#[derive(Default)]
pub struct Behaviour {
    /// Files of `org/model`; those over 100 bytes are "large": hashed by SHA-256, and served by redirect.
    pub files: BTreeMap<String, Vec<u8>>,
    pub port: u16,
    /// Wanted as a bearer token.
    pub token: Option<&'static str>,
    /// Breaks the next transfers of large files off after so many bytes each.
    pub break_off: Vec<usize>,
    /// Answers every request with this status.
    pub down: Option<u16>,
    /// Sends whole files, whatever range is asked for.
    pub ignores_ranges: bool,
    /// Announces this hash for every large file.
    pub wrong_hash: Option<String>,
}

/// A running hub.
pub struct Hub {
    pub endpoint: String,
    pub behaviour: Arc<Mutex<Behaviour>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    pub fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let behaviour = Arc::new(Mutex::new(Behaviour { files, port, ..Behaviour::default() }));
        let log = Arc::new(Mutex::new(Vec::new()));
        let hub = Self { endpoint, behaviour: behaviour.clone(), log: log.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away is none of the hub's business.
                let _ = stream.and_then(|stream| answer(stream, &behaviour, &log));
            }
        });
        hub
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// The requests since the last call, as `path` or `path @range`; told when a token went to the wrong host.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn answer(stream: TcpStream, behaviour: &Mutex<Behaviour>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut range, mut token) = (None, None);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let range_asked = range.as_ref().map(|range| format!(" @{range}")).unwrap_or_default();
    let leak = if token.is_some() && path.starts_with("/cdn/") { " with the token" } else { "" };
    log.lock().unwrap().push(format!("{path}{range_asked}{leak}"));
    let mut hub = behaviour.lock().unwrap();
    let reply = hub.reply(&path, range.as_deref(), token.as_deref());
    let broken = hub.break_off.first().copied().filter(|_| path.starts_with("/cdn/") && reply.status < 300);
    if broken.is_some() {
        hub.break_off.remove(0);
    }
    drop(hub);
    let mut head =
        format!("HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(&reply.body[..broken.unwrap_or(reply.body.len()).min(reply.body.len())])
}

#[derive(Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Behaviour {
    fn reply(&self, path: &str, range: Option<&str>, token: Option<&str>) -> Reply {
        let status = |status| Reply { status, ..Reply::default() };
        if let Some(code) = self.down {
            return status(code);
        }
        if let Some(file) = path.strip_prefix("/cdn/") {
            // As on the real hub, another host, which must not see the token.
            return self.body(file, range);
        }
        if let Some(wanted) = self.token {
            match token {
                Some(token) if token == wanted => {}
                Some(_) => return status(403),
                None => {
                    return Reply {
                        status: 401,
                        headers: vec![("X-Error-Code", "GatedRepo".into())],
                        ..Reply::default()
                    };
                }
            }
        }
        if let Some(rest) = path.strip_prefix("/api/models/org/model/revision/") {
            return match rest.split_once('?') {
                Some(("main" | COMMIT, "blobs=true")) => {
                    Reply { status: 200, body: self.listing().to_string().into(), ..Reply::default() }
                }
                _ => status(404),
            };
        }
        match path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")) {
            Some(file) if self.files.get(file).is_some_and(|bytes| is_large(bytes)) => Reply {
                status: 302,
                headers: vec![("Location", format!("http://localhost:{}/cdn/{file}", self.port))],
                ..Reply::default()
            },
            Some(file) => self.body(file, range),
            None => status(404),
        }
    }

    fn body(&self, file: &str, range: Option<&str>) -> Reply {
        let Some(bytes) = self.files.get(file) else { return Reply { status: 404, ..Reply::default() } };
        let start = range.filter(|_| !self.ignores_ranges).and_then(|range| range.trim_end_matches('-').parse().ok());
        match start {
            None => Reply { status: 200, body: bytes.clone(), ..Reply::default() },
            Some(start) if start >= bytes.len() => Reply { status: 416, ..Reply::default() },
            Some(start) => Reply {
                status: 206,
                headers: vec![("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))],
                body: bytes[start..].to_vec(),
            },
        }
    }

    fn listing(&self) -> Value {
        let sibling = |(name, bytes): (&String, &Vec<u8>)| {
            let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": sha256(bytes)[..40]});
            if is_large(bytes) {
                let hash = self.wrong_hash.clone().unwrap_or_else(|| sha256(bytes));
                file["lfs"] = json!({"sha256": hash, "size": bytes.len(), "pointerSize": 134});
            }
            file
        };
        json!({"id": "org/model", "sha": COMMIT, "siblings": self.files.iter().map(sibling).collect::<Vec<_>>()})
    }
}

fn is_large(bytes: &[u8]) -> bool {
    bytes.len() > 100
}
