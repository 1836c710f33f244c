//! What both contracts have in common of a generation: which fields of a completion theirs are, and what is said of the answers.

use std::collections::HashMap;

use futures_util::{Stream, StreamExt as _};
use serde_json::{Map, Value, json};
use tonic::Status;
use vllm_scheduler::GeneratedToken;

use super::super::{
    ask::{Asked, Told},
    status::{Names, refused},
};
use crate::{
    answer::Ending,
    http::{completions::Terms, reason_name},
};

/// What holds where a request doesn't say.
pub(super) const TERMS: Terms = Terms { max_tokens: usize::MAX, temperature: 1.0, max_alternatives: 20 };

/// What the messages call a completion's fields.
pub(super) const NAMES: Names = &[
    ("prompt", "input"),
    ("temperature", "sampling_params.temperature"),
    ("top_p", "sampling_params.top_p"),
    ("top_k", "sampling_params.top_k"),
    ("min_p", "sampling_params.min_p"),
    ("repetition_penalty", "sampling_params.repetition_penalty"),
    ("frequency_penalty", "sampling_params.frequency_penalty"),
    ("presence_penalty", "sampling_params.presence_penalty"),
    ("logit_bias", "sampling_params.logit_bias"),
    ("max_tokens", "sampling_params.max_tokens"),
    ("min_tokens", "sampling_params.min_tokens"),
    ("stop", "sampling_params.stop"),
    ("stop_token_ids", "sampling_params.stop_token_ids"),
    ("n", "sampling_params.n"),
    ("logprobs", "sampling_params.logprobs"),
    ("structured_outputs", "sampling_params.constraint"),
    ("structured_outputs.json", "sampling_params.json_schema"),
    ("structured_outputs.structural_tag", "sampling_params.structural_tag"),
    ("structured_outputs.choice", "sampling_params.choice"),
    ("truncate_prompt_tokens", "sampling_params.truncate_prompt_tokens"),
];

/// The fields of a completion, as a message fills them in.
#[derive(Debug, Default)]
pub(super) struct CompletionFields(Map<String, Value>);

impl CompletionFields {
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// A number, which JSON has only if it is finite.
    ///
    /// # Errors
    /// If it isn't.
    pub fn number(&mut self, name: &str, value: f32) -> Result<(), Status> {
        if !value.is_finite() {
            return Err(refused(&format!("sampling_params.{name}"), &format!("{value} is no number")));
        }
        self.set(name, value);
        Ok(())
    }

    /// Biases by token.
    ///
    /// # Errors
    /// If one isn't a finite number.
    pub fn logit_bias(&mut self, biases: &HashMap<i32, f32>) -> Result<(), Status> {
        if let Some((token, bias)) = biases.iter().find(|(_, bias)| !bias.is_finite()) {
            return Err(refused(&format!("sampling_params.logit_bias[{token}]"), &format!("{bias} is no number")));
        }
        let biases: Map<String, Value> = biases.iter().map(|(token, &bias)| (token.to_string(), json!(bias))).collect();
        self.set("logit_bias", biases);
        Ok(())
    }

    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }
}

/// What of the prompt and the answer has been counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub prompt: u32,
    /// Tokens of the answer: those that are new, or all.
    pub completion: u32,
    /// Of the prompt's tokens, those whose KV was found: known when the answer has ended.
    pub cached: u32,
}

/// Log probabilities, one entry a token in each list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Logprobs {
    pub tokens: Vec<u32>,
    pub chosen: Vec<f32>,
    /// The likeliest, best first; no lists at all where none were asked for.
    pub top: Vec<(Vec<f32>, Vec<u32>)>,
}

impl Logprobs {
    fn add(&mut self, token: &GeneratedToken) {
        let Some(logprobs) = &token.logprobs else { return };
        self.tokens.push(token.token);
        self.chosen.push(logprobs.sampled);
        if !logprobs.top.is_empty() {
            self.top.push(logprobs.top.iter().map(|top| (top.logprob, top.token)).unzip());
        }
    }

    fn of(tokens: &[GeneratedToken]) -> Option<Self> {
        let mut all = Self::default();
        tokens.iter().for_each(|token| all.add(token));
        (!all.tokens.is_empty()).then_some(all)
    }
}

/// What ended an answer, if somebody had asked for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Matched {
    Token(u32),
    Text(String),
}

/// A message of the answer.
#[derive(Debug)]
pub(super) enum Said {
    /// More of an answer that streams.
    Chunk {
        index: u32,
        tokens: Vec<u32>,
        logprobs: Option<Logprobs>,
        /// With the tokens that are new.
        counts: Counts,
        /// Tokens of the answer so far.
        so_far: u32,
    },
    /// The end of an answer: with all its tokens if it doesn't stream.
    Complete {
        index: u32,
        tokens: Vec<u32>,
        logprobs: Option<Logprobs>,
        reason: &'static str,
        matched: Option<Matched>,
        /// With all of the answer's tokens.
        counts: Counts,
    },
}

/// What of a request decides how its answers are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Telling {
    pub stream: bool,
    /// The model's own last token is none to it.
    pub ignore_eos: bool,
}

/// What is said of the answers: in chunks as they come, or all at the end, in their order.
///
/// As vLLM and mlx-lm have it, the token that ends an answer is among its tokens: gateways that parse tokens look for it. It is
/// counted, as it is over HTTP.
pub(super) fn said(asked: Asked, telling: Telling) -> impl Stream<Item = Result<Said, Status>> + Send {
    let teller = Teller {
        prompt: asked.prompt.len(),
        eos: if telling.ignore_eos { Vec::new() } else { asked.eos.clone() },
        stream: telling.stream,
        so_far: HashMap::new(),
        whole: HashMap::new(),
        ended: Vec::new(),
    };
    let told = asked.map(Some).chain(futures_util::stream::iter([None]));
    told.scan(teller, |teller, told| {
        let said = match told {
            Some(Ok(Told::Piece { index, tokens, .. })) => teller.piece(index, tokens),
            Some(Ok(Told::End { index, ending })) => teller.end(index, ending),
            Some(Err(status)) => {
                // Answers that had ended are of no use without the others.
                teller.ended.clear();
                vec![Err(status)]
            }
            None => teller.last(),
        };
        std::future::ready(Some(futures_util::stream::iter(said)))
    })
    .flatten()
}

struct Teller {
    prompt: usize,
    eos: Vec<u32>,
    stream: bool,
    /// Tokens of each answer that chunks had.
    so_far: HashMap<usize, usize>,
    /// Each answer's tokens, if they are told at its end.
    whole: HashMap<usize, Vec<GeneratedToken>>,
    /// Answers that are told when all have ended.
    ended: Vec<(usize, Said)>,
}

impl Teller {
    fn piece(&mut self, index: usize, tokens: Vec<GeneratedToken>) -> Vec<Result<Said, Status>> {
        if tokens.is_empty() {
            // Text that was held back: who has the tokens has it.
            return Vec::new();
        }
        if !self.stream {
            self.whole.entry(index).or_default().extend(tokens);
            return Vec::new();
        }
        vec![Ok(self.chunk(index, &tokens))]
    }

    fn chunk(&mut self, index: usize, tokens: &[GeneratedToken]) -> Said {
        let counted = tokens.len();
        let so_far = self.so_far.entry(index).or_default();
        *so_far += counted;
        Said::Chunk {
            index: whole(index),
            tokens: tokens.iter().map(|token| token.token).collect(),
            logprobs: Logprobs::of(tokens),
            counts: Counts { prompt: whole(self.prompt), completion: whole(counted), cached: 0 },
            so_far: whole(*so_far),
        }
    }

    fn end(&mut self, index: usize, ending: Ending) -> Vec<Result<Said, Status>> {
        let matched = match (&ending.stop, &ending.stop_token) {
            (Some(text), _) => Some(Matched::Text(text.clone())),
            (None, Some(stop)) => (!self.eos.contains(&stop.token)).then_some(Matched::Token(stop.token)),
            (None, None) => None,
        };
        let counts = Counts {
            prompt: whole(self.prompt),
            completion: whole(ending.usage.completion_tokens),
            cached: whole(ending.usage.cached_tokens),
        };
        let mut said = Vec::new();
        let mut tokens = self.whole.remove(&index).unwrap_or_default();
        match ending.stop_token {
            Some(stop) if self.stream => said.push(Ok(self.chunk(index, &[stop]))),
            stop => tokens.extend(stop),
        }
        let complete = Said::Complete {
            index: whole(index),
            tokens: tokens.iter().map(|token| token.token).collect(),
            logprobs: Logprobs::of(&tokens),
            reason: reason_name(ending.reason),
            matched,
            counts,
        };
        if self.stream {
            said.push(Ok(complete));
        } else {
            self.ended.push((index, complete));
        }
        said
    }

    fn last(&mut self) -> Vec<Result<Said, Status>> {
        self.ended.sort_by_key(|(index, _)| *index);
        self.ended.drain(..).map(|(_, complete)| Ok(complete)).collect()
    }
}

fn whole(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
