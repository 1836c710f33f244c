//! Images and videos that a gateway leaves to the worker.

use tonic::Status;
use vllm_grpc_proto::smg::{common::Modality, vllm::MediaRefs};

use super::super::status::{refused, status};
use crate::http::{
    Sampling,
    media::{Given, MediaPart, read_source},
};

/// What of the message these are.
const FIELD: &str = "media_refs.items";

/// The items, in their order. Blocks for as long as it takes to decode those that are there already.
///
/// # Errors
/// For none at all, for sound, and for what is no place where an item could be.
pub(super) fn parts(refs: &MediaRefs) -> Result<Vec<MediaPart>, Status> {
    if refs.items.is_empty() {
        return Err(refused(FIELD, "there are none: leave media_refs out"));
    }
    let part = |(index, item): (usize, &vllm_grpc_proto::smg::vllm::MediaRef)| {
        let at = format!("{FIELD}[{index}]");
        let source = || read_source(&format!("{at}.url"), &item.url).map_err(|error| status(&error));
        let given = match item.modality() {
            Modality::Image => Given::Image { source: source()?, detail: Default::default() },
            Modality::Video => Given::Video { source: source()?, sampling: Sampling::default() },
            other => {
                let why = format!("{}: this worker looks at images and videos", other.as_str_name());
                return Err(refused(&format!("{at}.modality"), &why));
            }
        };
        Ok(MediaPart { at, given })
    };
    refs.items.iter().enumerate().map(part).collect()
}
