//! gRPC clients of a server over fake engines.

use std::net::SocketAddr;

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use vllm_api::{
    grpc,
    http::App,
    listener::{ConnectionLimits, Listener},
};
use vllm_grpc_proto::vllm_proto::{
    FinishInfo, GenerateRequest, GenerateResponse, ResponseOptions, SequenceOutput, StoppingCriteria, TokenIds,
    control_client::ControlClient, generate_request::Prompt, inference_client::InferenceClient,
};

/// Opens a port for gRPC.
pub async fn listen(app: &App) -> SocketAddr {
    let listener = Listener::bind("127.0.0.1", 0, None, ConnectionLimits::default()).await.unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(listener.serve_grpc(grpc::router(app.clone()), std::future::pending()));
    address
}

/// A connection to a port of ours.
pub async fn connect(address: SocketAddr) -> Channel {
    Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Clients of both services of vLLM's.
pub async fn clients(app: &App) -> (InferenceClient<Channel>, ControlClient<Channel>) {
    let channel = connect(listen(app).await).await;
    (InferenceClient::new(channel.clone()), ControlClient::new(channel))
}

/// Wants up to 50 tokens more than `hi`, and all that is known of them.
pub fn request() -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Prompt::Text("hi".into())),
        stopping: Some(StoppingCriteria { max_new_tokens: 50, ..Default::default() }),
        response: Some(ResponseOptions { output_token_ids: true, ..Default::default() }),
        ..Default::default()
    }
}

pub fn ids(ids: &[u32]) -> TokenIds {
    TokenIds { ids: ids.to_vec() }
}

/// The only answer, and how it ended.
pub fn answer(response: GenerateResponse) -> (SequenceOutput, FinishInfo) {
    let output = response.outputs.unwrap();
    let finish = output.finish_info.clone().expect("the end of an answer");
    (output, finish)
}

/// All parts of a stream, put together by answer.
pub async fn collect(
    client: &mut InferenceClient<Channel>,
    request: GenerateRequest,
) -> Result<Vec<SequenceOutput>, Status> {
    let mut stream = client.generate_stream(request).await?.into_inner();
    let mut answers: Vec<SequenceOutput> = Vec::new();
    let mut first = true;
    while let Some(part) = stream.message().await? {
        assert_eq!(part.prompt_info.is_some(), std::mem::take(&mut first), "only the first response has it");
        let part = part.outputs.unwrap();
        let index = part.index as usize;
        answers.resize_with(answers.len().max(index + 1), SequenceOutput::default);
        let answer = &mut answers[index];
        assert!(answer.finish_info.is_none(), "something came after the end");
        answer.index = part.index;
        answer.text.push_str(&part.text);
        answer.num_tokens += part.num_tokens;
        answer.token_ids.extend(part.token_ids);
        answer.logprobs.extend(part.logprobs);
        answer.ranks.extend(part.ranks);
        answer.candidate_tokens.extend(part.candidate_tokens);
        answer.finish_info = part.finish_info;
    }
    Ok(answers)
}

/// The field that a status is about.
pub fn field(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    violations.into_iter().next().map(|violation| violation.field).unwrap_or_default()
}
