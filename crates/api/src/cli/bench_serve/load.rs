//! Runs one level: sends a list of conversations as the level says, and collects what came of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::{
    answer::Answer,
    arrivals::{self, Level},
    client::{Client, Failure, Kind},
    workload::{self, Conversation},
};

/// Which of OpenAI's routes is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Endpoint {
    /// /v1/chat/completions
    Chat,
    /// /v1/completions, without the model's chat template
    Completions,
}

/// A server, and what every request to it has in common.
#[derive(Debug)]
pub struct Target {
    /// The server.
    pub client: Client,
    /// The route.
    pub endpoint: Endpoint,
    /// Fields of every body; those of `--extra-body` among them.
    pub fields: Map<String, Value>,
}

impl Target {
    /// Asks with the messages so far.
    async fn ask(&self, messages: &[Value]) -> Result<Answer, Failure> {
        let mut body = self.fields.clone();
        let (path, name, prompt) = match self.endpoint {
            Endpoint::Chat => ("/v1/chat/completions", "messages", messages.into()),
            Endpoint::Completions => ("/v1/completions", "prompt", workload::as_text(messages).into()),
        };
        body.insert(name.into(), prompt);
        self.client.stream(path, &body.into()).await
    }

    /// Sends each turn when the one before is answered; gives a result for every turn.
    pub async fn converse(&self, conversation: Conversation, bar: &ProgressBar) -> Vec<Result<Answer, Failure>> {
        let mut messages = Vec::new();
        let mut results: Vec<Result<Answer, Failure>> = Vec::new();
        for turn in conversation.turns {
            let result = if results.last().is_some_and(Result::is_err) {
                Err(Failure::new(Kind::NotSent, "the turn before it failed"))
            } else {
                messages.extend(turn);
                self.ask(&messages).await
            };
            if let Ok(answer) = &result {
                messages.push(json!({ "role": "assistant", "content": answer.text }));
            }
            results.push(result);
            bar.inc(1);
        }
        results
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// From the first request's start to the last one's end.
    pub duration: Duration,
    /// Of every request, in the order of their ends.
    pub results: Vec<Result<Answer, Failure>>,
}

/// Sends all conversations. `seed` decides when, if arrivals are random.
pub async fn run(
    target: &Arc<Target>,
    level: Level,
    conversations: Vec<Conversation>,
    seed: u64,
    bar: &ProgressBar,
) -> Outcome {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    match level {
        Level::Concurrency(clients) => {
            let waiting = Arc::new(Mutex::new(VecDeque::from(conversations)));
            for _ in 0..clients {
                let (target, waiting, bar) = (Arc::clone(target), Arc::clone(&waiting), bar.clone());
                tasks.spawn(async move {
                    let mut results = Vec::new();
                    while let Some(next) = pop(&waiting) {
                        results.extend(target.converse(next, &bar).await);
                    }
                    results
                });
            }
        }
        Level::Rate(rate) => {
            let times = arrivals::times(rate, conversations.len(), seed);
            for (at, conversation) in times.into_iter().zip(conversations) {
                let (target, bar) = (Arc::clone(target), bar.clone());
                tasks.spawn(async move {
                    tokio::time::sleep(at.saturating_sub(start.elapsed())).await;
                    target.converse(conversation, &bar).await
                });
            }
        }
    }
    let mut results = Vec::new();
    while let Some(finished) = tasks.join_next().await {
        match finished {
            Ok(of_task) => results.extend(of_task),
            Err(panicked) => results.push(Err(Failure::new(Kind::Broken, panicked.to_string()))),
        }
    }
    Outcome { duration: start.elapsed(), results }
}

/// The next one, if any; in a function of its own, so that the lock is not held while it is asked.
fn pop(waiting: &Mutex<VecDeque<Conversation>>) -> Option<Conversation> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}
