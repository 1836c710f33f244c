//! Images and videos of a `GenerateRequest`.

use tonic::Status;
use vllm_grpc_proto::vllm_proto::{MediaItem, Modality, media_item};
use vllm_media::Source;

use crate::{
    grpc::status::{refused, status},
    http::media::{Given, MediaPart, read_source},
};

/// The items, in their order.
///
/// # Errors
/// INVALID_ARGUMENT naming the item that can't be had.
pub fn parts(items: Vec<MediaItem>) -> Result<Vec<MediaPart>, Status> {
    items.into_iter().enumerate().map(|(index, item)| part(&format!("media[{index}]"), item)).collect()
}

/// An item. Its type is seen in its bytes, whatever `mime_type` says; its content is its name in caches, not `uuid`.
fn part(at: &str, item: MediaItem) -> Result<MediaPart, Status> {
    let modality = item.modality();
    let read = |name: &str, text: &str, schemes: &[&str]| {
        let at = format!("{at}.{name}");
        if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(refused(&at, &format!("it must begin with {}", schemes.join(" or "))));
        }
        read_source(&at, text).map_err(|error| status(&error))
    };
    let source = match item.source {
        Some(media_item::Source::Url(url)) => read("url", &url, &["http://", "https://"])?,
        Some(media_item::Source::DataUri(uri)) => read("data_uri", &uri, &["data:"])?,
        Some(media_item::Source::RawBytes(bytes)) => Source::Bytes(bytes.into()),
        Some(media_item::Source::Features(_)) => {
            let why = "features that a front end has made are not taken: send the file itself";
            return Err(refused(&format!("{at}.features"), why));
        }
        None => return Err(refused(at, "it has no source: give url, data_uri or raw_bytes")),
    };
    let given = match modality {
        Modality::Image => Given::Image { source, detail: Default::default() },
        Modality::Video => Given::Video { source, sampling: Default::default() },
        Modality::Audio => {
            return Err(refused(&format!("{at}.modality"), "models that generate text hear nothing here"));
        }
        Modality::Unspecified => {
            return Err(refused(&format!("{at}.modality"), "it must be said: MODALITY_IMAGE or MODALITY_VIDEO"));
        }
    };
    Ok(MediaPart { at: at.to_owned(), given })
}
