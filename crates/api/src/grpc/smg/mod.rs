//! SMG's two contracts with its workers: `MlxEngine`, which is small, and `VllmEngine`, which has all that we can do. A gateway
//! that isn't told which one to take finds `VllmEngine` first.
//!
//! Neither names models: they speak of the server's first model that generates or, where there is none, of its first one that
//! makes embeddings.

mod admin;
mod embed;
mod generate;
mod info;
mod kv_events;
mod loads;
mod media_refs;
mod mlx;
mod tokenizer;
mod vllm;

use std::{path::Path, pin::Pin, sync::Arc};

use futures_util::Stream;
use tonic::Status;
use vllm_grpc_proto::smg::{
    common::GetTokenizerChunk, mlx::mlx_engine_server::MlxEngineServer, vllm::vllm_engine_server::VllmEngineServer,
};
use vllm_text::Tokenizer;

use self::tokenizer::Bundles;
use super::status::status;
use crate::{
    encoder::{Role, ServedEncoder},
    http::{App, health},
    model::ServedModel,
    residency::Lease,
};

/// What a procedure that answers with many messages returns.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Both services, over the same engines.
pub(super) fn services(app: &App) -> (MlxEngineServer<mlx::Service>, VllmEngineServer<vllm::Service>) {
    let worker = Arc::new(Worker { app: app.clone(), bundles: Bundles::default() });
    (MlxEngineServer::new(mlx::Service(Arc::clone(&worker))), VllmEngineServer::new(vllm::Service(worker)))
}

/// What both services are made of.
#[derive(Debug)]
struct Worker {
    app: App,
    bundles: Bundles,
}

impl Worker {
    /// The model that is spoken of; loaded if it isn't.
    async fn served(&self) -> Result<Served, Status> {
        let app = &self.app;
        match app.default_model() {
            Ok(name) => Ok(Served::Model(app.lease(&name).await.map_err(|error| status(&error))?)),
            Err(error) => self.encoder().map(Served::Encoder).ok_or_else(|| status(&error)),
        }
    }

    /// The same if it generates and is loaded: to look at it is no use of it.
    fn loaded(&self) -> Option<Arc<ServedModel>> {
        let name = self.app.default_model().ok()?;
        self.app.loaded().into_iter().find(|model| model.names.contains(&name))
    }

    /// The first model that makes embeddings.
    fn encoder(&self) -> Option<Arc<ServedEncoder>> {
        self.app.encoders().into_iter().find(|encoder| encoder.role() == Role::Embed)
    }

    /// Whether requests can be served, and a word on it.
    fn health(&self) -> (bool, String) {
        let state = health::state(&self.app);
        (state == health::SERVING, state.to_owned())
    }

    async fn tokenizer(&self) -> Result<Answers<GetTokenizerChunk>, Status> {
        let served = self.served().await?;
        let bundle = self.bundles.of(served).await;
        let bundle = bundle.map_err(|error| Status::internal(format!("the tokenizer can't be packed: {error:#}")))?;
        Ok(Box::pin(futures_util::stream::iter(bundle.chunks().map(Ok))))
    }
}

/// A model in use.
#[derive(Debug, Clone)]
enum Served {
    Model(Lease),
    Encoder(Arc<ServedEncoder>),
}

impl Served {
    fn name(&self) -> &str {
        let names = match self {
            Self::Model(model) => &model.names,
            Self::Encoder(encoder) => &encoder.names,
        };
        names.first().map_or("", String::as_str)
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Model(model) => model.path.as_deref(),
            Self::Encoder(encoder) => encoder.path.as_deref(),
        }
    }

    fn created(&self) -> u64 {
        match self {
            Self::Model(model) => model.created,
            Self::Encoder(encoder) => encoder.created,
        }
    }

    fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Model(model) => &model.tokenizer,
            Self::Encoder(encoder) => &encoder.tokenizer,
        }
    }
}
