//! What was said, written down.

use axum::http::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc;

use super::{conversation::Samples, input::RATE, outbox::Outbox, settings::Transcription};
use crate::http::{ApiError, App, request_id::Id};

/// The transcript of a part of an item.
#[derive(Debug)]
pub struct Transcribed {
    /// The item.
    pub item: String,
    /// The part.
    pub part: usize,
    /// What was said, or why that isn't known.
    pub text: Result<String, ApiError>,
}

/// Has samples transcribed, and tells the client (`told`) and the session.
pub async fn transcribe(
    app: App,
    books: (Id, HeaderMap),
    wanted: Transcription,
    told: Option<Outbox>,
    (item, part): (String, usize),
    samples: Samples,
    session: mpsc::Sender<Transcribed>,
) {
    let seconds = samples.len() as f64 / f64::from(RATE);
    let place = json!({ "item_id": item, "content_index": part });
    let mut text = String::new();
    let result = async {
        let mut stream = app.listen(books, &wanted, samples)?;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            text.push_str(&piece);
            if let Some(out) = &told {
                let mut fields = place.clone();
                fields["delta"] = json!(piece);
                // Whoever is gone is noticed by the session.
                let _ = out.send("conversation.item.input_audio_transcription.delta", fields).await;
            }
        }
        Ok(())
    };
    let result = result.await.map(|()| text.trim().to_owned());
    if let Some(out) = &told {
        let mut fields = place;
        let kind = match &result {
            Ok(text) => {
                fields["transcript"] = json!(text);
                fields["usage"] = json!({ "type": "duration", "seconds": seconds });
                "conversation.item.input_audio_transcription.completed"
            }
            Err(error) => {
                fields["error"] = error.to_json()["error"].take();
                "conversation.item.input_audio_transcription.failed"
            }
        };
        let _ = out.send(kind, fields).await;
    }
    let _ = session.send(Transcribed { item, part, text: result }).await;
}
