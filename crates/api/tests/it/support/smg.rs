//! SMG's clients of a server over fake engines.

use futures_util::StreamExt as _;
use tonic::{Status, Streaming, transport::Channel};
use vllm_api::http::App;
use vllm_grpc_proto::smg::{
    mlx::{self, mlx_engine_client::MlxEngineClient},
    vllm::{self, vllm_engine_client::VllmEngineClient},
};

use super::grpc::{connect, listen};

/// A client of the large contract.
pub async fn vllm_client(app: &App) -> VllmEngineClient<Channel> {
    VllmEngineClient::new(connect(listen(app).await).await)
}

/// A client of the small one.
pub async fn mlx_client(app: &App) -> MlxEngineClient<Channel> {
    MlxEngineClient::new(connect(listen(app).await).await)
}

/// Wants up to 50 tokens more than `hi`.
pub fn vllm_request() -> vllm::GenerateRequest {
    vllm::GenerateRequest {
        input: Some(vllm::generate_request::Input::Text("hi".into())),
        sampling_params: Some(vllm::SamplingParams {
            max_tokens: Some(50),
            temperature: Some(0.0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The same of the small contract.
pub fn mlx_request() -> mlx::GenerateRequest {
    mlx::GenerateRequest {
        input: Some(mlx::generate_request::Input::Text("hi".into())),
        sampling_params: Some(mlx::SamplingParams { max_tokens: Some(50), ..Default::default() }),
        ..Default::default()
    }
}

/// All messages of a stream.
pub async fn all<T>(stream: Streaming<T>) -> Result<Vec<T>, Status> {
    stream.collect::<Vec<_>>().await.into_iter().collect()
}

/// An answer put together from the messages of a stream, or the one that has it all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub tokens: Vec<u32>,
    /// Of the chunks: those of the large contract count what is new.
    pub counted: u32,
    pub chunks: usize,
    pub logprobs: Vec<(u32, f32)>,
    pub top: Vec<Vec<u32>>,
    pub end: Option<End>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct End {
    pub reason: String,
    pub prompt: u32,
    pub completion: u32,
    pub cached: u32,
    pub matched: Option<String>,
}

impl Answer {
    /// Its text, without the token that ends answers.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn answer(answers: &mut Vec<Answer>, index: u32) -> &mut Answer {
    let index = index as usize;
    answers.resize_with(answers.len().max(index + 1), Answer::default);
    let answer = &mut answers[index];
    assert_eq!(answer.end, None, "something came after the end");
    answer
}

/// The answers to a request of the large contract, by index.
pub async fn vllm_answers(app: &App, request: vllm::GenerateRequest) -> Result<Vec<Answer>, Status> {
    use vllm::{generate_complete::MatchedStop, generate_response::Response};
    let streams = request.stream;
    let messages = all(vllm_client(app).await.generate(request).await?.into_inner()).await?;
    let mut answers = Vec::new();
    for message in messages {
        let (answer, logprobs) = match message.response.unwrap() {
            Response::Chunk(chunk) => {
                assert!(streams, "nobody asked for chunks");
                let answer = answer(&mut answers, chunk.index);
                answer.tokens.extend(&chunk.token_ids);
                answer.counted += chunk.completion_tokens;
                answer.chunks += 1;
                (answer, chunk.output_logprobs)
            }
            Response::Complete(complete) => {
                let answer = answer(&mut answers, complete.index);
                answer.tokens.extend(&complete.output_ids);
                let matched = complete.matched_stop.map(|matched| match matched {
                    MatchedStop::MatchedTokenId(token) => token.to_string(),
                    MatchedStop::MatchedStopStr(text) => text,
                });
                answer.end = Some(End {
                    reason: complete.finish_reason,
                    prompt: complete.prompt_tokens,
                    completion: complete.completion_tokens,
                    cached: complete.cached_tokens,
                    matched,
                });
                (answer, complete.output_logprobs)
            }
        };
        let logprobs = logprobs.unwrap_or_default();
        answer.logprobs.extend(logprobs.token_ids.into_iter().zip(logprobs.token_logprobs));
        answer.top.extend(logprobs.top_logprobs.into_iter().map(|top| top.token_ids));
    }
    Ok(answers)
}

/// The answers to a request of the small contract.
pub async fn mlx_answers(app: &App, request: mlx::GenerateRequest) -> Result<Vec<Answer>, Status> {
    use mlx::generate_response::Response;
    let streams = request.stream;
    let messages = all(mlx_client(app).await.generate(request).await?.into_inner()).await?;
    let mut answers = Vec::new();
    for message in messages {
        let (answer, logprobs) = match message.response.unwrap() {
            Response::Chunk(chunk) => {
                assert!(streams, "nobody asked for chunks");
                let answer = answer(&mut answers, chunk.index);
                answer.tokens.extend(&chunk.token_ids);
                assert!(answer.counted <= chunk.completion_tokens, "this contract counts all so far");
                answer.counted = chunk.completion_tokens;
                answer.chunks += 1;
                (answer, chunk.output_logprobs)
            }
            Response::Complete(complete) => {
                let answer = answer(&mut answers, complete.index);
                answer.tokens.extend(&complete.output_ids);
                answer.end = Some(End {
                    reason: complete.finish_reason,
                    prompt: complete.prompt_tokens,
                    completion: complete.completion_tokens,
                    cached: complete.cached_tokens,
                    matched: complete.matched_stop_token_id.map(|token| token.to_string()),
                });
                (answer, complete.output_logprobs)
            }
        };
        let logprobs = logprobs.unwrap_or_default();
        answer.logprobs.extend(logprobs.token_ids.into_iter().zip(logprobs.token_logprobs));
        answer.top.extend(logprobs.top_logprobs.into_iter().map(|top| top.token_ids));
    }
    Ok(answers)
}
