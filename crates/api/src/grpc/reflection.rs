//! Server reflection: which services there are, for clients that have no .proto files.

use tonic::service::Routes;
use tonic_reflection::server::Builder;
use vllm_grpc_proto::smg;

/// Adds both versions of the service.
pub(super) fn add(routes: Routes) -> Routes {
    // Descriptors that are part of the program can be read, or a test would know.
    let routes = match builder().build_v1() {
        Ok(service) => routes.add_service(service),
        Err(error) => unreadable(routes, &error),
    };
    match builder().build_v1alpha() {
        Ok(service) => routes.add_service(service),
        Err(error) => unreadable(routes, &error),
    }
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(vllm_grpc_proto::VLLM_DESCRIPTORS)
        .register_encoded_file_descriptor_set(smg::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn unreadable(routes: Routes, error: &dyn std::fmt::Display) -> Routes {
    tracing::error!(%error, "no server reflection: the program's descriptors can't be read");
    routes
}
