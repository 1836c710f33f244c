//! `vllm.Control`: what the server is, and what can be done to requests and engines that run.

use std::{future::ready, pin::Pin};

use tonic::{Request, Response, Status};
use vllm_grpc_proto::vllm_proto::{self as proto, control_server::Control};

use super::{
    ask::Caller,
    status::{refused, status},
};
use crate::http::{ApiError, App, requests};

/// The service.
#[derive(Debug)]
pub(super) struct ControlService {
    pub app: App,
}

/// What a procedure gives, in the form that `async_trait` makes of it: it doesn't look into macros.
type Refusal<'f, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'f>>;

/// Procedures of what this engine doesn't have.
macro_rules! unimplemented {
    ($($name:ident($request:ident) -> $response:ident: $why:expr;)*) => {
        $(fn $name<'s, 'f>(&'s self, _: Request<proto::$request>) -> Refusal<'f, proto::$response>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(ready(Err(Status::unimplemented($why))))
        })*
    };
}

const NO_PAUSE: &str = "this engine can't be paused: drain it by ending the server, or abort requests by their ids";
const NO_SLEEP: &str = "this engine doesn't sleep: a server that loads its model when asked (--lazy-load-model, \
                        --auto-unload-idle-seconds) gives its memory back";
const NO_UPDATE: &str = "weights of a running engine can't be changed: start a server with the new ones";

#[tonic::async_trait]
impl Control for ControlService {
    async fn get_server_info(
        &self,
        _: Request<proto::GetServerInfoRequest>,
    ) -> Result<Response<proto::ServerInfo>, Status> {
        let model = self.app.loaded().into_iter().next();
        let model = model.ok_or_else(|| match self.app.models() {
            Err(loading) => status(&loading),
            Ok(_) => Status::unavailable("no model that generates is loaded"),
        })?;
        let info = model.engine.info();
        // The first kind of layers that reads everything: it is what bounds a sequence.
        let groups = &info.kv_cache.groups;
        let group = groups.iter().find(|group| group.window.is_none()).or(groups.first());
        Ok(Response::new(proto::ServerInfo {
            engine_version: env!("CARGO_PKG_VERSION").into(),
            api_version: "vllm".into(),
            instance_id: self.app.instance_id().into(),
            parallelism: Some(proto::ParallelismInfo {
                tensor_parallel_size: 1,
                pipeline_parallel_size: 1,
                data_parallel_size: 1,
                data_parallel_rank: 0,
                decode_context_parallel_size: 1,
                world_size: 1,
                data_parallel_size_local: 1,
            }),
            max_model_len: narrow(info.context_length),
            kv_block_size: narrow(info.kv_cache.block_size),
            total_kv_blocks: group.map_or(0, |group| group.num_blocks as u64),
            max_running_requests: model.engine.load().max_running as u64,
            max_batched_tokens: model.engine.max_batched_tokens() as u64,
            max_loras: 0,
            rl_capabilities: Some(proto::RlCapabilities::default()),
            proto_version: proto::VERSION.into(),
            effective_attention_block_size: Some(info.kv_cache.block_size as u64),
        }))
    }

    async fn get_model_info(
        &self,
        _: Request<proto::GetModelInfoRequest>,
    ) -> Result<Response<proto::ModelInfo>, Status> {
        let failed = |error: ApiError| status(&error);
        let name = self.app.default_model().map_err(failed)?;
        let model = self.app.lease(&name).await.map_err(failed)?;
        let mut names = model.names.iter().cloned();
        let first = names.next().unwrap_or_default();
        Ok(Response::new(proto::ModelInfo {
            model_id: first.clone(),
            served_model_name: first,
            served_model_aliases: names.collect(),
            supports_text_input: true,
            supports_token_ids_input: true,
            supports_lora: false,
            supports_multimodal: model.vision.is_some(),
            reasoning_parser: model
                .reasoning
                .and_then(|format| format.names.first().copied())
                .unwrap_or_default()
                .into(),
            tool_call_parser: model.calls.and_then(|format| format.names.first().copied()).unwrap_or_default().into(),
        }))
    }

    async fn shutdown(&self, _: Request<proto::ShutdownRequest>) -> Result<Response<proto::ShutdownResponse>, Status> {
        Err(Status::failed_precondition("this server is ended by whoever started it: send its process a SIGTERM"))
    }

    /// Aborts what runs under these names. That one isn't there is no error: it may have ended just now.
    async fn abort(&self, request: Request<proto::AbortRequest>) -> Result<Response<proto::AbortResponse>, Status> {
        let caller = Caller::of(&request).id;
        for id in request.into_inner().request_ids {
            requests::end(&self.app, &caller, &id).await.map_err(|error| status(&error))?;
        }
        Ok(Response::new(proto::AbortResponse {}))
    }

    async fn list_loras(
        &self,
        _: Request<proto::ListLorasRequest>,
    ) -> Result<Response<proto::ListLorasResponse>, Status> {
        Ok(Response::new(proto::ListLorasResponse::default()))
    }

    async fn load_lora(
        &self,
        request: Request<proto::LoadLoraRequest>,
    ) -> Result<Response<proto::LoadLoraResponse>, Status> {
        let name = request.into_inner().lora_name;
        Err(Status::unimplemented(format!("lora_name {name:?}: this server loads no LoRA adapters")))
    }

    async fn unload_lora(
        &self,
        request: Request<proto::UnloadLoraRequest>,
    ) -> Result<Response<proto::UnloadLoraResponse>, Status> {
        let name = request.into_inner().lora_name;
        Err(Status::not_found(format!("there is no LoRA adapter {name:?} here")))
    }

    /// None: the events of this server's engines are told over gRPC, by `VllmEngine.SubscribeKvEvents`, not over sockets of
    /// their own.
    async fn get_kv_event_sources(
        &self,
        _: Request<proto::GetKvEventSourcesRequest>,
    ) -> Result<Response<proto::GetKvEventSourcesResponse>, Status> {
        Ok(Response::new(proto::GetKvEventSourcesResponse::default()))
    }

    async fn is_paused(&self, _: Request<proto::IsPausedRequest>) -> Result<Response<proto::IsPausedResponse>, Status> {
        Ok(Response::new(proto::IsPausedResponse { paused: false }))
    }

    async fn is_sleeping(
        &self,
        _: Request<proto::IsSleepingRequest>,
    ) -> Result<Response<proto::IsSleepingResponse>, Status> {
        Ok(Response::new(proto::IsSleepingResponse { sleeping: false }))
    }

    async fn pause_generation(
        &self,
        request: Request<proto::PauseGenerationRequest>,
    ) -> Result<Response<proto::PauseGenerationResponse>, Status> {
        match proto::PauseMode::try_from(request.into_inner().mode) {
            Ok(_) => Err(Status::unimplemented(NO_PAUSE)),
            Err(_) => Err(refused("mode", "there is no such mode")),
        }
    }

    unimplemented! {
        resume_generation(ResumeGenerationRequest) -> ResumeGenerationResponse: NO_PAUSE;
        sleep(SleepRequest) -> SleepResponse: NO_SLEEP;
        wake_up(WakeUpRequest) -> WakeUpResponse: NO_SLEEP;
        init_weight_transfer_engine(InitWeightTransferEngineRequest) -> InitWeightTransferEngineResponse: NO_UPDATE;
        start_weight_update(StartWeightUpdateRequest) -> StartWeightUpdateResponse: NO_UPDATE;
        start_draft_weight_update(StartDraftWeightUpdateRequest) -> StartDraftWeightUpdateResponse: NO_UPDATE;
        update_weights(UpdateWeightsRequest) -> UpdateWeightsResponse: NO_UPDATE;
        finish_weight_update(FinishWeightUpdateRequest) -> FinishWeightUpdateResponse: NO_UPDATE;
        update_weight_version(UpdateWeightVersionRequest) -> UpdateWeightVersionResponse: NO_UPDATE;
        get_weight_version(GetWeightVersionRequest) -> GetWeightVersionResponse: NO_UPDATE;
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
