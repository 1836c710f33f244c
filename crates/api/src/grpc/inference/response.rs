//! `GenerateResponse`s of what the engine tells.

use vllm_grpc_proto::vllm_proto::{
    CandidateTokenInfo, FinishInfo, GenerateResponse, PromptInfo, SequenceOutput, candidate_token_info::TokenInfo,
    finish_info,
};
use vllm_platform::TokenId;
use vllm_scheduler::{FinishReason, GeneratedToken};

use crate::{
    answer::Ending,
    grpc::ask::{Asked, Told},
};

/// What of the answers is to be told.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub prompt_token_ids: bool,
    pub text: bool,
    pub token_ids: bool,
    pub logprobs: bool,
    pub candidates: bool,
}

/// Writes the responses to one request.
#[derive(Debug)]
pub struct Writer {
    wanted: Wanted,
    /// For the first response.
    prompt: Option<PromptInfo>,
    eos: Vec<TokenId>,
}

impl Writer {
    /// For answers that are under way.
    pub fn new(asked: &Asked, wanted: Wanted) -> Self {
        let token_ids = if wanted.prompt_token_ids { asked.prompt.clone() } else { Vec::new() };
        let prompt = PromptInfo { num_prompt_tokens: asked.prompt.len() as u32, token_ids, ..PromptInfo::default() };
        Self { wanted, prompt: Some(prompt), eos: asked.eos.clone() }
    }

    /// What is told, as a response.
    pub fn response(&mut self, told: Told) -> GenerateResponse {
        let outputs = match told {
            Told::Piece { index, text, tokens } => {
                let text = if self.wanted.text { text } else { String::new() };
                SequenceOutput { text, ..self.output(index, &tokens) }
            }
            Told::End { index, ending } => {
                // A stop token is no part of the text, but one of the tokens, as it is counted.
                let output = self.output(index, ending.stop_token.as_slice());
                SequenceOutput { finish_info: Some(self.finish(&ending)), ..output }
            }
        };
        GenerateResponse { prompt_info: self.prompt.take(), outputs: Some(outputs) }
    }

    fn output(&self, index: usize, tokens: &[GeneratedToken]) -> SequenceOutput {
        let Wanted { token_ids, logprobs, candidates, .. } = self.wanted;
        let told = || tokens.iter().filter_map(|token| Some((token.token, token.logprobs.as_ref()?)));
        let mut output = SequenceOutput { index: index as u32, num_tokens: tokens.len() as u32, ..Default::default() };
        if token_ids {
            output.token_ids = tokens.iter().map(|token| token.token).collect();
        }
        if logprobs {
            output.logprobs = told().map(|(_, logprobs)| logprobs.sampled).collect();
            output.ranks = told().map(|(_, logprobs)| logprobs.rank as u32).collect();
        }
        if candidates {
            let others = |(own, logprobs): (TokenId, &vllm_platform::TokenLogprobs)| {
                let ranked = (1..).zip(&logprobs.top).filter(|(_, top)| top.token != own);
                let tokens = ranked.map(|(rank, top)| TokenInfo { id: top.token, logprob: top.logprob, rank });
                CandidateTokenInfo { tokens: tokens.collect() }
            };
            output.candidate_tokens = told().map(others).collect();
        }
        output
    }

    fn finish(&self, ending: &Ending) -> FinishInfo {
        let reason = match ending.reason {
            FinishReason::Stop => finish_info::FinishReason::Stop,
            FinishReason::Length => finish_info::FinishReason::Length,
            FinishReason::Abort => finish_info::FinishReason::Aborted,
        };
        let stop_reason = match (&ending.stop, &ending.stop_token) {
            (Some(text), _) => Some(finish_info::StopReason::StopString(text.clone())),
            (None, Some(stop)) if self.eos.contains(&stop.token) => {
                Some(finish_info::StopReason::EosTokenId(stop.token))
            }
            (None, Some(stop)) => Some(finish_info::StopReason::StopTokenId(stop.token)),
            (None, None) => None,
        };
        FinishInfo {
            num_output_tokens: ending.usage.completion_tokens as u32,
            finish_reason: reason.into(),
            num_cached_tokens: Some(ending.usage.cached_tokens as u32),
            stop_reason,
            ..FinishInfo::default()
        }
    }
}

/// Adds what came later to a response.
pub fn append(whole: &mut GenerateResponse, later: GenerateResponse) {
    let (Some(output), Some(later)) = (&mut whole.outputs, later.outputs) else { return };
    output.text.push_str(&later.text);
    output.num_tokens += later.num_tokens;
    output.token_ids.extend(later.token_ids);
    output.logprobs.extend(later.logprobs);
    output.ranks.extend(later.ranks);
    output.candidate_tokens.extend(later.candidate_tokens);
    output.finish_info = later.finish_info.or(output.finish_info.take());
}
