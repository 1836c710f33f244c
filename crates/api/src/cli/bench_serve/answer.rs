//! A streamed answer and its times.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Failure, Kind};

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// From sending to the first piece of content; `None` if there was none.
    pub ttft: Option<Duration>,
    /// Between one piece of content and the next. Servers send a piece a token, as a rule.
    pub gaps: Vec<Duration>,
    /// From sending to the end of the body.
    pub e2e: Duration,
    /// What the server counted, if it said so.
    pub usage: Option<Usage>,
    /// Pieces of content.
    pub pieces: usize,
    /// Its text.
    pub text: String,
}

/// Tokens, as the server counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub prompt: u64,
    pub completion: u64,
    /// Of the prompt's tokens, those found in a cache, if the server says.
    pub cached: Option<u64>,
}

impl Answer {
    /// Tokens of the answer: as the server counted them, else its pieces.
    pub fn tokens(&self) -> u64 {
        self.usage.map_or(self.pieces as u64, |usage| usage.completion)
    }

    /// Time per output token after the first; `None` if there is no second one.
    pub fn tpot(&self) -> Option<Duration> {
        let after_first = u32::try_from(self.tokens().saturating_sub(1)).ok().filter(|&tokens| tokens > 0)?;
        (!self.gaps.is_empty()).then(|| self.gaps.iter().sum::<Duration>() / after_first)
    }
}

/// Puts an answer together from its events.
#[derive(Debug)]
pub struct Collector {
    sent: Instant,
    last_piece: Option<Instant>,
    finished: bool,
    answer: Answer,
}

impl Collector {
    /// Of a request sent at `sent`.
    pub fn new(sent: Instant) -> Self {
        let answer =
            Answer { ttft: None, gaps: Vec::new(), e2e: Duration::ZERO, usage: None, pieces: 0, text: String::new() };
        Self { sent, last_piece: None, finished: false, answer }
    }

    /// Takes an event's data that arrived at `now`.
    ///
    /// # Errors
    /// Data that isn't JSON; an error that the server reports.
    pub fn event(&mut self, data: &str, now: Instant) -> Result<(), Failure> {
        if data == "[DONE]" {
            self.finished = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data)
            .map_err(|error| Failure::new(Kind::Broken, format!("an event is not JSON: {error}")))?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let message = error["message"].as_str().or(error.as_str()).map_or_else(|| error.to_string(), str::to_owned);
            return Err(Failure::new(Kind::Server, message));
        }
        if let Some(usage) = usage(&chunk["usage"]) {
            self.answer.usage = Some(usage);
        }
        let choice = &chunk["choices"][0];
        self.finished |= choice["finish_reason"].is_string();
        let delta = &choice["delta"];
        // Chat's text, completions' text, and the two names that servers have for reasoning.
        let texts = [&delta["content"], &choice["text"], &delta["reasoning_content"], &delta["reasoning"]];
        let texts: Vec<&str> = texts.into_iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).collect();
        let calls = delta["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
        if texts.is_empty() && !calls {
            return Ok(());
        }
        // Some servers send reasoning under both names.
        self.answer.text.push_str(texts.first().copied().unwrap_or_default());
        self.answer.pieces += 1;
        match self.last_piece.replace(now) {
            None => self.answer.ttft = Some(now - self.sent),
            Some(last) => self.answer.gaps.push(now - last),
        }
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// If it wasn't said that the answer has, too.
    pub fn end(mut self, now: Instant) -> Result<Answer, Failure> {
        if !self.finished {
            return Err(Failure::new(Kind::Broken, "the stream ended before the answer was complete"));
        }
        self.answer.e2e = now - self.sent;
        Ok(self.answer)
    }
}

fn usage(usage: &Value) -> Option<Usage> {
    Some(Usage {
        prompt: usage["prompt_tokens"].as_u64()?,
        completion: usage["completion_tokens"].as_u64()?,
        cached: usage["prompt_tokens_details"]["cached_tokens"].as_u64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events, 10 ms apart.
    fn collect(events: &[&str]) -> Result<Answer, Failure> {
        let start = Instant::now();
        let at = |step: usize| start + Duration::from_millis(10 * step as u64);
        let mut collector = Collector::new(start);
        for (step, event) in events.iter().enumerate() {
            collector.event(event, at(step + 1))?;
        }
        collector.end(at(events.len() + 1))
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_chat_answer_is_timed_from_its_first_content() {
        let answer = collect(&[
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"Hel"}}],"usage":null}"#,
            r#"{"choices":[{"delta":{"content":"lo"}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#,
            "[DONE]",
        ])
        .unwrap();
        assert_eq!(answer.ttft, Some(20 * MS));
        assert_eq!(answer.gaps, [10 * MS]);
        assert_eq!(answer.e2e, 70 * MS);
        assert_eq!(answer.usage, Some(Usage { prompt: 9, completion: 3, cached: Some(4) }));
        assert_eq!((answer.text.as_str(), answer.pieces, answer.tokens()), ("Hello", 2, 3));
        assert_eq!(answer.tpot(), Some(5 * MS));
    }

    #[test]
    fn without_usage_pieces_are_counted() {
        let answer = collect(&[
            r#"{"choices":[{"text":"a"}]}"#,
            r#"{"choices":[{"text":"b"}]}"#,
            r#"{"choices":[{"text":"c","finish_reason":"length"}]}"#,
        ])
        .unwrap();
        assert_eq!((answer.usage, answer.tokens(), answer.tpot()), (None, 3, Some(10 * MS)));
    }

    #[test]
    fn reasoning_and_tool_calls_are_content() {
        let answer = collect(&[
            r#"{"choices":[{"delta":{"reasoning_content":"hm","reasoning":"hm"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
            "[DONE]",
        ])
        .unwrap();
        assert_eq!((answer.pieces, answer.text.as_str()), (2, "hm"));
    }

    #[test]
    fn what_is_not_an_answer_is_a_failure() {
        let cases: [(&[&str], Kind); 4] = [
            (&[r#"{"choices":[{"delta":{"content":"a"}}]}"#], Kind::Broken),
            (&["{", "[DONE]"], Kind::Broken),
            (&[r#"{"error":{"message":"out of memory"}}"#], Kind::Server),
            (&[], Kind::Broken),
        ];
        for (events, kind) in cases {
            assert_eq!(collect(events).unwrap_err().kind, kind, "{events:?}");
        }
        let said = collect(&[r#"{"error":"no"}"#]).unwrap_err().message;
        assert_eq!(said, "no");
    }

    #[test]
    fn an_empty_answer_has_no_first_token() {
        let answer = collect(&[r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#]).unwrap();
        assert_eq!((answer.ttft, answer.tpot(), answer.pieces), (None, None, 0));
    }
}
