//! `mlx.grpc.engine.MlxEngine`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::json;
use tonic::{Request, Response, Status};
use vllm_grpc_proto::smg::{
    common::{GetTokenizerChunk, GetTokenizerRequest},
    mlx::{
        AbortRequest, AbortResponse, GenerateComplete, GenerateRequest, GenerateResponse, GenerateStreamChunk,
        GetModelInfoRequest, GetModelInfoResponse, GetServerInfoRequest, GetServerInfoResponse, HealthCheckRequest,
        HealthCheckResponse, OutputLogProbs, SamplingParams, TopLogProbs, generate_request::Input,
        generate_response::Response as Either, mlx_engine_server::MlxEngine,
    },
};

use super::{
    super::{
        ask::{Ask, Caller, ask},
        status::refused,
    },
    Answers, Worker,
    generate::{CompletionFields, Logprobs, Matched, NAMES, Said, TERMS, Telling, said},
};
use crate::http::call::Endpoint;

/// The service.
#[derive(Debug)]
pub struct Service(pub(super) Arc<Worker>);

#[tonic::async_trait]
impl MlxEngine for Service {
    type GenerateStream = Answers<GenerateResponse>;
    type GetTokenizerStream = Answers<GetTokenizerChunk>;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let caller = Caller::of(&request);
        let GenerateRequest { request_id, input, sampling_params, stream } = request.into_inner();
        let params = sampling_params.unwrap_or_default();
        let mut fields = fields(&params)?;
        match input {
            Some(Input::Tokenized(prompt)) => fields.set("prompt", prompt.input_ids),
            Some(Input::Text(text)) => fields.set("prompt", text),
            None => return Err(refused("input", "there is none: give tokenized or text")),
        }
        let telling = Telling { stream, ignore_eos: params.ignore_eos };
        let asking = Ask {
            endpoint: Endpoint::GrpcMlxGenerate,
            request_id,
            model: None,
            fields: fields.into_map(),
            media: Vec::new(),
            stream,
            terms: TERMS,
            names: NAMES,
        };
        let asked = ask(&self.0.app, &caller, asking).await?;
        Ok(Response::new(Box::pin(said(asked, telling).map(|said| said.map(response)))))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let (healthy, message) = self.0.health();
        Ok(Response::new(HealthCheckResponse { healthy, message }))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<AbortResponse>, Status> {
        let caller = Caller::of(&request);
        self.0.abort(&caller, &request.into_inner().request_ids).await?;
        Ok(Response::new(AbortResponse {}))
    }

    async fn get_model_info(&self, _: Request<GetModelInfoRequest>) -> Result<Response<GetModelInfoResponse>, Status> {
        Ok(Response::new(self.0.model_facts().await?.into()))
    }

    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(self.0.mlx_server_info()))
    }

    async fn get_tokenizer(
        &self,
        _: Request<GetTokenizerRequest>,
    ) -> Result<Response<Self::GetTokenizerStream>, Status> {
        Ok(Response::new(self.0.tokenizer().await?))
    }
}

/// The fields of a completion. A gateway of this contract isn't told of the model's defaults, so that they hold where it says
/// nothing: numbers that are 0 and can't tell whether they were meant to be.
fn fields(params: &SamplingParams) -> Result<CompletionFields, Status> {
    let mut fields = CompletionFields::default();
    if let Some(temperature) = params.temperature {
        fields.number("temperature", temperature)?;
    }
    let numbers = [
        ("top_p", params.top_p),
        ("min_p", params.min_p),
        ("repetition_penalty", params.repetition_penalty),
        ("frequency_penalty", params.frequency_penalty),
        ("presence_penalty", params.presence_penalty),
    ];
    for (name, value) in numbers.into_iter().filter(|(_, value)| *value != 0.0) {
        fields.number(name, value)?;
    }
    if params.top_k != 0 {
        fields.set("top_k", params.top_k);
    }
    fields.logit_bias(&params.logit_bias)?;
    if let Some(max_tokens) = params.max_tokens {
        fields.set("max_tokens", max_tokens);
    }
    fields.set("stop_token_ids", json!(params.stop_token_ids));
    fields.set("ignore_eos", params.ignore_eos);
    if let Some(logprobs) = params.logprobs {
        fields.set("logprobs", logprobs);
    }
    if let Some(seed) = params.seed {
        fields.set("seed", seed);
    }
    Ok(fields)
}

fn response(said: Said) -> GenerateResponse {
    let response = match said {
        Said::Chunk { index, tokens, logprobs, counts, so_far } => Either::Chunk(GenerateStreamChunk {
            token_ids: tokens,
            prompt_tokens: counts.prompt,
            completion_tokens: so_far,
            cached_tokens: counts.cached,
            output_logprobs: logprobs.map(Into::into),
            index,
        }),
        Said::Complete { index, tokens, logprobs, reason, matched, counts } => Either::Complete(GenerateComplete {
            output_ids: tokens,
            finish_reason: reason.to_owned(),
            prompt_tokens: counts.prompt,
            completion_tokens: counts.completion,
            cached_tokens: counts.cached,
            output_logprobs: logprobs.map(Into::into),
            index,
            matched_stop_token_id: match matched {
                Some(Matched::Token(token)) => Some(token),
                Some(Matched::Text(_)) | None => None,
            },
        }),
    };
    GenerateResponse { response: Some(response) }
}

impl From<Logprobs> for OutputLogProbs {
    fn from(logprobs: Logprobs) -> Self {
        let top = logprobs.top.into_iter().map(|(values, token_ids)| TopLogProbs { values, token_ids });
        Self { token_logprobs: logprobs.chosen, token_ids: logprobs.tokens, top_logprobs: top.collect() }
    }
}
