//! `vllm.grpc.engine.VllmEngine`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::json;
use tonic::{Request, Response, Status};
use vllm_grpc_proto::smg::{
    common::{
        FlushCacheRequest, FlushCacheResponse, GetTokenizerChunk, GetTokenizerRequest, KvEventBatch, ProfileResponse,
        StartProfileRequest, StopProfileRequest, SubscribeKvEventsRequest,
    },
    vllm::{
        AbortRequest, AbortResponse, EmbedRequest, EmbedResponse, GenerateComplete, GenerateRequest, GenerateResponse,
        GenerateStreamChunk, GetLoadsRequest, GetLoadsResponse, GetModelInfoRequest, GetModelInfoResponse,
        GetServerInfoRequest, GetServerInfoResponse, HealthCheckRequest, HealthCheckResponse, OutputLogProbs,
        SamplingParams, TopLogProbs, generate_complete::MatchedStop, generate_request::Input,
        generate_response::Response as Either, sampling_params::Constraint, vllm_engine_server::VllmEngine,
    },
};

use super::{
    super::{
        ask::{Ask, Caller, ask},
        status::refused,
    },
    Answers, Worker,
    generate::{CompletionFields, Logprobs, Matched, NAMES, Said, TERMS, Telling, said},
    media_refs,
};
use crate::http::{call::Endpoint, media::MediaPart};

/// The service.
#[derive(Debug)]
pub struct Service(pub(super) Arc<Worker>);

#[tonic::async_trait]
impl VllmEngine for Service {
    type GenerateStream = Answers<GenerateResponse>;
    type GetTokenizerStream = Answers<GetTokenizerChunk>;
    type SubscribeKvEventsStream = Answers<KvEventBatch>;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        check(&request)?;
        let GenerateRequest { request_id, input, sampling_params, stream, media_refs, .. } = request;
        let params = sampling_params.unwrap_or_default();
        let mut fields = fields(&params)?;
        let is_text = matches!(input, Some(Input::Text(_)));
        match input {
            Some(Input::Tokenized(prompt)) => fields.set("prompt", prompt.input_ids),
            Some(Input::Text(text)) => fields.set("prompt", text),
            None => return Err(refused("input", "there is none: give tokenized or text")),
        }
        let media = match media_refs {
            Some(_) if is_text => return Err(refused("media_refs", "they want their places in tokenized input")),
            Some(refs) => {
                let parts = tokio::task::spawn_blocking(move || media_refs::parts(&refs)).await;
                parts.map_err(|error| Status::internal(error.to_string()))??
            }
            None => Vec::<MediaPart>::new(),
        };
        let telling = Telling { stream, ignore_eos: params.ignore_eos };
        let asking = Ask {
            endpoint: Endpoint::GrpcVllmGenerate,
            request_id,
            model: None,
            fields: fields.into_map(),
            media,
            stream,
            terms: TERMS,
            names: NAMES,
        };
        let asked = ask(&self.0.app, &caller, asking).await?;
        Ok(Response::new(Box::pin(said(asked, telling).map(|said| said.map(response)))))
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let caller = Caller::of(&request);
        let EmbedRequest { request_id, tokenized } = request.into_inner();
        let tokens = tokenized.ok_or_else(|| refused("tokenized", "it is missing"))?.input_ids;
        let (embedding, prompt_tokens) = self.0.embed(&caller, request_id, tokens).await?;
        let embedding_dim = u32::try_from(embedding.len()).unwrap_or(u32::MAX);
        Ok(Response::new(EmbedResponse { embedding, prompt_tokens, embedding_dim }))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let (healthy, message) = self.0.health();
        Ok(Response::new(HealthCheckResponse { healthy, message }))
    }

    async fn flush_cache(&self, request: Request<FlushCacheRequest>) -> Result<Response<FlushCacheResponse>, Status> {
        Ok(Response::new(self.0.flush(request.get_ref()).await?))
    }

    async fn start_profile(&self, request: Request<StartProfileRequest>) -> Result<Response<ProfileResponse>, Status> {
        Ok(Response::new(self.0.start_profile(request.get_ref()).await?))
    }

    async fn stop_profile(&self, _: Request<StopProfileRequest>) -> Result<Response<ProfileResponse>, Status> {
        Ok(Response::new(self.0.stop_profile().await?))
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
        Ok(Response::new(self.0.vllm_server_info()))
    }

    async fn get_loads(&self, request: Request<GetLoadsRequest>) -> Result<Response<GetLoadsResponse>, Status> {
        // There is one rank. `include` can only ask for more than the core, which is all there is.
        check_rank("dp_rank", request.get_ref().dp_rank)?;
        Ok(Response::new(self.0.loads()))
    }

    async fn get_tokenizer(
        &self,
        _: Request<GetTokenizerRequest>,
    ) -> Result<Response<Self::GetTokenizerStream>, Status> {
        Ok(Response::new(self.0.tokenizer().await?))
    }

    async fn subscribe_kv_events(
        &self,
        request: Request<SubscribeKvEventsRequest>,
    ) -> Result<Response<Self::SubscribeKvEventsStream>, Status> {
        Ok(Response::new(Box::pin(Arc::clone(&self.0).kv_events(*request.get_ref())?)))
    }
}

fn check_rank(field: &str, rank: Option<i32>) -> Result<(), Status> {
    match rank {
        None | Some(0) => Ok(()),
        Some(rank) => Err(refused(field, &format!("there is no rank {rank}: this worker is one engine, rank 0"))),
    }
}

/// Refuses what only makes sense with workers of other kinds.
fn check(request: &GenerateRequest) -> Result<(), Status> {
    let transfer = "this worker neither hands KV over nor takes it: prefill and decode happen in one place";
    let pixels = "this worker looks at media itself: send media_refs (SMG: --mm-processing worker)";
    let has = [
        ("kv_transfer_params", request.kv_transfer_params.is_some(), transfer),
        ("kv_transfer_params_json", request.kv_transfer_params_json.is_some(), transfer),
        ("mm_inputs", request.mm_inputs.is_some(), pixels),
        ("extra_mm_inputs", !request.extra_mm_inputs.is_empty(), pixels),
    ];
    if let Some((field, _, why)) = has.into_iter().find(|(_, is_there, _)| *is_there) {
        return Err(refused(field, why));
    }
    check_rank("data_parallel_rank", request.data_parallel_rank)?;
    if request.sampling_params.as_ref().is_some_and(|params| params.prompt_logprobs.is_some()) {
        return Err(refused("sampling_params.prompt_logprobs", "prompts are not scored here: leave it out"));
    }
    Ok(())
}

/// The fields of a completion. A gateway of this contract fills in the model's defaults, which [`info`](super::info) tells it: what
/// is 0 is meant to be without effect. Where a grammar begins is the same with and without `grammar_from_first_token`, and spaces
/// between special tokens are for text, of which none is sent.
fn fields(params: &SamplingParams) -> Result<CompletionFields, Status> {
    let mut fields = CompletionFields::default();
    if let Some(temperature) = params.temperature {
        fields.number("temperature", temperature)?;
    }
    let or_one = |value: f32| if value == 0.0 { 1.0 } else { value };
    fields.number("top_p", or_one(params.top_p))?;
    fields.number("repetition_penalty", or_one(params.repetition_penalty))?;
    fields.number("min_p", params.min_p)?;
    fields.number("frequency_penalty", params.frequency_penalty)?;
    fields.number("presence_penalty", params.presence_penalty)?;
    fields.set("top_k", params.top_k);
    fields.logit_bias(&params.logit_bias)?;
    if let Some(max_tokens) = params.max_tokens {
        fields.set("max_tokens", max_tokens);
    }
    fields.set("min_tokens", params.min_tokens);
    fields.set("stop", json!(params.stop));
    fields.set("stop_token_ids", json!(params.stop_token_ids));
    fields.set("skip_special_tokens", params.skip_special_tokens);
    fields.set("ignore_eos", params.ignore_eos);
    fields.set("n", params.n.max(1));
    if let Some(logprobs) = params.logprobs {
        fields.set("logprobs", logprobs);
    }
    if let Some(seed) = params.seed {
        fields.set("seed", seed);
    }
    fields.set("include_stop_str_in_output", params.include_stop_str_in_output);
    if let Some(tokens) = params.truncate_prompt_tokens {
        fields.set("truncate_prompt_tokens", tokens);
    }
    let constraint = params.constraint.as_ref().map(|constraint| match constraint {
        Constraint::JsonSchema(schema) => json!({ "json": schema }),
        Constraint::Regex(pattern) => json!({ "regex": pattern }),
        Constraint::Grammar(grammar) => json!({ "grammar": grammar }),
        Constraint::StructuralTag(tag) => json!({ "structural_tag": tag }),
        Constraint::JsonObject(object) => json!({ "json_object": object }),
        Constraint::Choice(choice) => json!({ "choice": choice.choices }),
    });
    if let Some(constraint) = constraint {
        fields.set("structured_outputs", constraint);
    }
    Ok(fields)
}

fn response(said: Said) -> GenerateResponse {
    let response = match said {
        Said::Chunk { index, tokens, logprobs, counts, .. } => Either::Chunk(GenerateStreamChunk {
            token_ids: tokens,
            prompt_tokens: counts.prompt,
            completion_tokens: counts.completion,
            cached_tokens: counts.cached,
            output_logprobs: logprobs.map(Into::into),
            input_logprobs: None,
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
            matched_stop: matched.map(|matched| match matched {
                Matched::Token(token) => MatchedStop::MatchedTokenId(token),
                Matched::Text(text) => MatchedStop::MatchedStopStr(text),
            }),
            ..GenerateComplete::default()
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
