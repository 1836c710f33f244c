//! `Embed`: a `POST /v1/embeddings` of one text that is tokens already.

use serde_json::{Map, json};
use tonic::Status;

use super::{
    super::{
        ask::Caller,
        status::{Names, renamed},
    },
    Worker,
};
use crate::http::{
    ApiError, Fields, blocking,
    call::{Call, Endpoint},
    embeddings::EmbeddingRequest,
    encoders,
};

const NAMES: Names = &[("input", "tokenized.input_ids")];

impl Worker {
    /// The embedding of a text, and the number of its tokens.
    pub async fn embed(&self, caller: &Caller, name: String, tokens: Vec<u32>) -> Result<(Vec<f32>, u32), Status> {
        let failed = |error: ApiError| renamed(&error, NAMES);
        let missing = "this worker makes no embeddings: serve a model that does with --embedding-model";
        let encoder = self.encoder().ok_or_else(|| Status::unimplemented(missing))?;
        let mut id = caller.id.clone();
        if !name.is_empty() {
            id.name = name;
        }
        let mut call = Call::new(&self.app, Endpoint::GrpcVllmEmbed, id, &caller.headers);
        call.describe(encoder.names.first().map_or("", String::as_str), false);
        let fields = Map::from_iter([("input".to_owned(), json!([tokens]))]);
        let model = encoder.clone();
        let request = blocking(move || EmbeddingRequest::take(Fields::from_map(fields), &model));
        let inputs = request.await.map_err(failed)?.inputs;
        let timeout = self.app.config.timeout;
        let encoded = encoders::encode(&mut call, &encoder, inputs, timeout).await.map_err(failed)?;
        let tokens = u32::try_from(encoded.tokens).unwrap_or(u32::MAX);
        let vector = encoded.vectors.into_iter().next();
        Ok((vector.ok_or_else(|| Status::internal("the encoder gave no vector"))?, tokens))
    }
}
