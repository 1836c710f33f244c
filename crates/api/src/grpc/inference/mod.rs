//! `vllm.Inference`: answers to prompts of text or tokens, whole or as they come.

mod media;
mod request;
mod response;

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use vllm_grpc_proto::vllm_proto::{GenerateRequest, GenerateResponse, inference_server::Inference};

use self::{request::Understood, response::Writer};
use super::ask::{Asked, Caller, ask};
use crate::http::App;

/// The service.
#[derive(Debug)]
pub(super) struct InferenceService {
    pub app: App,
}

impl InferenceService {
    async fn start(&self, request: Request<GenerateRequest>, stream: bool) -> Result<(Asked, Writer), Status> {
        let caller = Caller::of(&request);
        let Understood { ask: asked, told } = request::understand(request.into_inner(), stream)?;
        let asked = ask(&self.app, &caller, asked).await?;
        let writer = Writer::new(&asked, told);
        Ok((asked, writer))
    }
}

#[tonic::async_trait]
impl Inference for InferenceService {
    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<GenerateResponse>, Status> {
        let (mut asked, mut writer) = self.start(request, false).await?;
        let mut whole: Option<GenerateResponse> = None;
        while let Some(told) = asked.next().await {
            let part = writer.response(told?);
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => response::append(whole, part),
            }
        }
        whole.map(Response::new).ok_or_else(|| Status::internal("the answer broke off"))
    }

    type GenerateStreamStream = Pin<Box<dyn Stream<Item = Result<GenerateResponse, Status>> + Send>>;

    async fn generate_stream(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let (asked, mut writer) = self.start(request, true).await?;
        // Dropped with its client's call, it cancels what is under way.
        let parts = asked.map(move |told| told.map(|told| writer.response(told)));
        Ok(Response::new(Box::pin(parts)))
    }
}
