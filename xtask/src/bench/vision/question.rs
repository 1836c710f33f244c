//! A question about pictures, asked of a server as OpenAI's clients do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What is asked.
pub struct Question<'a> {
    pub model: &'a str,
    /// Parts of the message before the text.
    pub parts: Vec<Value>,
    pub text: &'a str,
    /// Requests of another salt find nothing in the KV cache.
    pub salt: Option<&'a str>,
}

/// An image as a part of a message.
pub fn image(url: &str) -> Value {
    json!({ "type": "image_url", "image_url": { "url": url } })
}

/// What came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// From sending the request to the first event with text.
    pub first_token_ms: f64,
    /// `usage`, as the server gives it.
    pub usage: Value,
}

impl Question<'_> {
    /// Asks for a few tokens and reads them to their end.
    pub fn ask(&self, port: u16) -> Result<Answer> {
        let mut content = self.parts.clone();
        content.push(json!({ "type": "text", "text": self.text }));
        let mut body = json!({
            "model": self.model, "messages": [{ "role": "user", "content": content }],
            "max_tokens": 4, "temperature": 0, "stream": true, "stream_options": { "include_usage": true },
        });
        if let Some(salt) = self.salt {
            body["cache_salt"] = json!(salt);
        }
        let start = Instant::now();
        let socket = post(port, "/v1/chat/completions", &body)?;
        let (mut first, mut usage, mut said) = (None, Value::Null, String::new());
        for line in BufReader::new(socket).lines() {
            let line = line?;
            let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok())
            else {
                said = if said.len() < 2000 { said + &line } else { said };
                continue;
            };
            if !event["choices"][0]["finish_reason"].is_null() || has_text(&event) {
                first.get_or_insert_with(|| start.elapsed().as_secs_f64() * 1e3);
            }
            if event["usage"].is_object() {
                usage = event["usage"].clone();
            }
        }
        let first_token_ms = first.with_context(|| format!("no token came: {said}"))?;
        Ok(Answer { first_token_ms, usage })
    }
}

fn has_text(event: &Value) -> bool {
    let delta = &event["choices"][0]["delta"];
    ["content", "reasoning_content", "reasoning"]
        .iter()
        .any(|key| delta[*key].as_str().is_some_and(|text| !text.is_empty()))
}

fn post(port: u16, path: &str, body: &Value) -> Result<TcpStream> {
    let body = body.to_string();
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )?;
    socket.write_all(body.as_bytes())?;
    Ok(socket)
}

/// What our server says of what its encoder did and keeps.
pub fn vision_stats(port: u16) -> Result<Value> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.write_all(b"GET /v1/cache/stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let body = answer.split("\r\n\r\n").nth(1).context("an answer without a body")?;
    let begin = body.find('{').context("an answer that is no object")?;
    let stats = serde_json::Deserializer::from_str(&body[begin..]).into_iter::<Value>().next();
    let vision = stats.context("no statistics")??["vision"].clone();
    ensure!(vision.is_object(), "the server has no eyes: {body}");
    Ok(vision)
}
