//! A multipart form as it comes in: its fields, and its file, which goes to the disk once it is longer than a mebibyte.
//!
//! The file on the disk has no name: it is unlinked as it is made, so that nothing is left of it however the request ends, or the
//! process.

use std::{
    error::Error,
    io::{self, Seek as _, Write as _},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt as _;
use multer::{Constraints, Field, Multipart, SizeLimit};
use tempfile::SpooledTempFile;

use crate::http::{ApiError, blocking, body_time::TooSlow};

/// Bytes of a file that are held in memory before they are written.
const PIECE: usize = 1 << 20;
/// Most bytes of all fields that are not the file.
const FIELD_BYTES: usize = 1 << 20;
/// Most fields of a form.
const FIELDS: usize = 100;
/// How much longer than its file a form can be: its fields, and what stands between them.
const OVERHEAD: u64 = 2 << 20;
/// How long the rest of a form that was refused is listened to: clients that send all of it before they read would otherwise find
/// the connection broken, and no answer.
const LINGER: Duration = Duration::from_secs(10);

/// A file that was sent.
#[derive(Debug)]
pub struct Upload {
    /// What it holds, from its beginning.
    pub file: SpooledTempFile,
    /// How long it is.
    pub bytes: u64,
    /// What says of what kind it is: its name's extension, or else its content type.
    pub hint: Option<String>,
}

/// A form.
#[derive(Debug, Default)]
pub struct Received {
    /// Names and texts, in the order in which they came.
    pub fields: Vec<(String, String)>,
    /// What was sent as `file`.
    pub file: Option<Upload>,
}

/// Takes in a form whose file has at most `limit` bytes.
///
/// # Errors
/// 413 as soon as the file is longer, or is going to be; 408 if it takes too long; 400 if it is no form, or breaks off.
pub async fn receive(headers: &HeaderMap, body: Body, limit: u64) -> Result<Received, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(content_type).map_err(|_| {
        let message = "the body must be a form: Content-Type: multipart/form-data, with a boundary";
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_content_type", message)
    })?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut stream = body.into_data_stream();
    let received = if announced.is_some_and(|bytes| bytes > limit + OVERHEAD) {
        Err(too_large(limit))
    } else {
        // What has no end is held in memory only so far: the heads of fields.
        let most = SizeLimit::new().whole_stream(limit + OVERHEAD);
        let form = Multipart::with_constraints(&mut stream, boundary, Constraints::new().size_limit(most));
        read(form, limit).await
    };
    if received.as_ref().is_err_and(|error| error.status() == StatusCode::PAYLOAD_TOO_LARGE) {
        tokio::spawn(tokio::time::timeout(LINGER, drain(stream)));
    }
    received
}

async fn read(mut form: Multipart<'_>, limit: u64) -> Result<Received, ApiError> {
    let mut received = Received::default();
    let mut text_bytes = 0;
    while let Some(field) = form.next_field().await.map_err(|error| broken(error, limit))? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if received.file.is_some() {
                return Err(ApiError::field("file", "there is more than one file: send one at a time"));
            }
            received.file = Some(save(field, limit).await?);
        } else {
            let text = read_text(field, &name, FIELD_BYTES - text_bytes, limit).await?;
            text_bytes += name.len() + text.len();
            received.fields.push((name, text));
        }
        if received.fields.len() > FIELDS || text_bytes > FIELD_BYTES {
            return Err(ApiError::invalid(
                None,
                format!("the form has more than {FIELDS} fields, or too much in them"),
            ));
        }
    }
    Ok(received)
}

async fn read_text(mut field: Field<'_>, name: &str, room: usize, limit: u64) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(error, limit))? {
        if bytes.len() + chunk.len() > room {
            return Err(ApiError::field(name, format!("{name} is longer than all fields together may be")));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| ApiError::field(name, format!("{name} is not UTF-8")))
}

async fn save(mut field: Field<'_>, limit: u64) -> Result<Upload, ApiError> {
    let hint = hint(&field);
    let mut file = SpooledTempFile::new(PIECE);
    let (mut piece, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(error, limit))? {
        bytes += chunk.len() as u64;
        if bytes > limit {
            return Err(too_large(limit));
        }
        piece.extend_from_slice(&chunk);
        if piece.len() >= PIECE {
            file = write(file, std::mem::take(&mut piece)).await?;
        }
    }
    let mut file = write(file, piece).await?;
    file.rewind().map_err(|error| not_kept(&error))?;
    Ok(Upload { file, bytes, hint })
}

/// Disks can be slow: not where async tasks run.
async fn write(mut file: SpooledTempFile, piece: Vec<u8>) -> Result<SpooledTempFile, ApiError> {
    blocking(move || file.write_all(&piece).map(|()| file).map_err(|error| not_kept(&error))).await
}

fn hint(field: &Field<'_>) -> Option<String> {
    let name = field.file_name().and_then(|name| name.rsplit_once('.'));
    let extension = name.map(|(_, extension)| extension.to_ascii_lowercase()).filter(|extension| !extension.is_empty());
    // What clients say that don't know.
    let kind = field.content_type().map(|kind| kind.essence_str().to_owned());
    extension.or(kind.filter(|kind| kind != "application/octet-stream"))
}

async fn drain(mut stream: BodyDataStream) {
    while let Some(Ok(_)) = stream.next().await {}
}

fn too_large(limit: u64) -> ApiError {
    let message = format!("the file is longer than {limit} bytes ({} MiB)", limit as f64 / f64::from(1 << 20));
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message).with_param("file")
}

fn not_kept(error: &io::Error) -> ApiError {
    tracing::error!(%error, "an upload can't be kept in {}", std::env::temp_dir().display());
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "storage_failed", "the server has no room for the file")
}

fn broken(error: multer::Error, limit: u64) -> ApiError {
    if matches!(error, multer::Error::StreamSizeExceeded { .. }) {
        return too_large(limit);
    }
    let mut source: Option<&dyn Error> = Some(&error);
    while let Some(inner) = source {
        if inner.is::<TooSlow>() {
            return ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", inner.to_string());
        }
        source = inner.source();
    }
    ApiError::invalid(None, format!("the form could not be read: {error}"))
}
