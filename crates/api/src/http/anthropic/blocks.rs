//! Content blocks that are text, whatever they are called, and those that are images.

use serde_json::{Value, json};

use vllm_media::Detail;

use crate::http::{
    ApiError, Fields,
    fields::show,
    media::{Given, Kind, Media, MediaPart, read_base64, read_source},
    messages::{joined, text_part},
};

/// A content block whose type is known.
pub struct Block {
    /// Where it stands: `messages[0].content[1]`.
    pub at: String,
    pub kind: String,
    pub fields: Fields,
}

impl Block {
    /// Opens a block. What it says of caching is heard and changes nothing: every prefix is cached here.
    pub fn open(at: String, block: Value) -> Result<Self, ApiError> {
        let Value::Object(map) = block else {
            let message = format!("{at} is {}: it must be an object with a type", show(&block));
            return Err(ApiError::field(&at, message));
        };
        let mut fields = Fields::within(&at, map);
        fields.object("cache_control")?;
        match fields.string("type")? {
            Some(kind) => Ok(Self { at, kind, fields }),
            None => Err(ApiError::field(&at, format!("{at} has no type"))),
        }
    }

    /// A string that must be there.
    pub fn need(&mut self, name: &str) -> Result<String, ApiError> {
        self.fields.string(name)?.ok_or_else(|| self.error(&format!("has no {name}")))
    }

    /// 400 for this block.
    pub fn error(&self, what: &str) -> ApiError {
        ApiError::field(&self.at, format!("{} {what}", self.at))
    }

    /// The text of a block that has some.
    pub fn into_text(mut self) -> Result<String, ApiError> {
        let text = match self.kind.as_str() {
            "text" => {
                // Those of earlier answers, for readers.
                self.fields.value("citations");
                self.need("text")?
            }
            "document" => self.document()?,
            "search_result" => {
                self.refuse_citations()?;
                let head = [self.need("title")?, self.need("source")?];
                let text = self.nested_text("content")?;
                join(head.into_iter().chain([text]))
            }
            // How a client that searches tools by itself names what it found. The tool is in the prompt already.
            "tool_reference" => self.need("tool_name")?,
            _ => return Err(self.not_text()),
        };
        self.fields.finish();
        Ok(text)
    }

    fn document(&mut self) -> Result<String, ApiError> {
        self.refuse_citations()?;
        let head = [self.fields.string("title")?, self.fields.string("context")?];
        let Some(source) = self.fields.value("source") else { return Err(self.error("has no source")) };
        let mut source = Self::open(format!("{}.source", self.at), source)?;
        let text = match source.kind.as_str() {
            "text" => {
                source.fields.string("media_type")?;
                source.need("data")?
            }
            "content" => source.nested_text("content")?,
            other => {
                let shown = show(&json!(other));
                let message = format!("{} is of type {shown}: this model takes text only", source.at);
                return Err(ApiError::unsupported(&source.at, message));
            }
        };
        source.fields.finish();
        Ok(join(head.into_iter().flatten().chain([text])))
    }

    /// A field that is a string or a list of blocks of text; empty if it isn't there.
    pub fn nested_text(&mut self, name: &str) -> Result<String, ApiError> {
        match self.fields.value(name) {
            None => Ok(String::new()),
            Some(content) => text(&format!("{}.{name}", self.at), content),
        }
    }

    /// A field that is a string or a list of blocks of text and images; empty if it isn't there.
    pub fn nested(&mut self, name: &str, media: &mut Media) -> Result<Vec<Piece>, ApiError> {
        let at = format!("{}.{name}", self.at);
        match self.fields.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(blocks)) => {
                let piece = |(index, block)| Piece::of(Self::open(format!("{at}[{index}]"), block)?, media);
                blocks.into_iter().enumerate().map(piece).collect()
            }
            Some(content) => Ok(vec![Piece::Text(text(&at, content)?)]),
        }
    }

    /// An image's place: `{"type": "base64", "media_type", "data"}` or `{"type": "url", "url"}`.
    fn image(mut self) -> Result<MediaPart, ApiError> {
        let Some(source) = self.fields.value("source") else { return Err(self.error("has no source")) };
        let mut source = Self::open(format!("{}.source", self.at), source)?;
        let image = match source.kind.as_str() {
            "base64" => {
                let media_type = source.need("media_type")?;
                if !IMAGE_TYPES.contains(&media_type.as_str()) {
                    let param = format!("{}.media_type", source.at);
                    let shown = show(&json!(media_type));
                    let message = format!("{param} is {shown}: it must be {}", IMAGE_TYPES.join(", "));
                    return Err(ApiError::field(&param, message));
                }
                // What it really is, its first bytes say.
                read_base64(&format!("{}.data", source.at), &source.need("data")?)?
            }
            "url" => read_source(&format!("{}.url", source.at), &source.need("url")?)?,
            "file" => {
                let message = format!("{}: this server keeps no files: use base64 or url", source.at);
                return Err(ApiError::unsupported(&source.at, message));
            }
            other => {
                let shown = show(&json!(other));
                return Err(source.error(&format!("is of type {shown}: it must be base64 or url")));
            }
        };
        source.fields.finish();
        self.fields.finish();
        Ok(MediaPart { at: self.at, given: Given::Image { source: image, detail: Detail::default() } })
    }

    fn refuse_citations(&mut self) -> Result<(), ApiError> {
        let Some(mut citations) = self.fields.object("citations")? else { return Ok(()) };
        if citations.boolean("enabled")?.unwrap_or(false) {
            let param = format!("{}.citations", self.at);
            return Err(ApiError::unsupported(&param, format!("{param}: this server's answers have no citations")));
        }
        Ok(())
    }

    /// 400 for a block that stands where it can't be understood.
    pub fn not_text(&self) -> ApiError {
        let (at, kind) = (&self.at, self.kind.as_str());
        let of_a_server = kind.starts_with("mcp_")
            || kind.ends_with("_tool_result")
            || ["server_tool_use", "container_upload"].contains(&kind);
        let problem = match kind {
            "image" => "images stand in what users say and in results of tools only",
            "thinking" | "redacted_thinking" | "tool_use" => "only blocks of the assistant's turns are",
            "tool_result" => "only blocks of the user's turns are",
            _ if of_a_server => "this server runs no tools of its own",
            _ => "it is not known here",
        };
        let message = format!("{at} is of type {}: {problem}", show(&json!(kind)));
        ApiError::unsupported(at, message)
    }
}

/// The text of content that must be text: a string, or a list of blocks.
pub fn text(at: &str, content: Value) -> Result<String, ApiError> {
    Ok(join(texts(at, content)?))
}

/// The texts of content that must be text.
pub fn texts(at: &str, content: Value) -> Result<Vec<String>, ApiError> {
    match content {
        Value::String(text) => Ok(vec![text]),
        Value::Array(blocks) => {
            let text = |(index, block)| Block::open(format!("{at}[{index}]"), block)?.into_text();
            blocks.into_iter().enumerate().map(text).collect()
        }
        other => {
            let message = format!("{at} is {}: it must be a string or an array of blocks", show(&other));
            Err(ApiError::field(at, message))
        }
    }
}

/// One text of several.
pub fn join(texts: impl IntoIterator<Item = String>) -> String {
    let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    texts.join("\n")
}

/// What `media_type` may be: Anthropic's four, and what can be read here beside them.
const IMAGE_TYPES: [&str; 6] = ["image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp", "image/tiff"];

/// A piece of what is said.
#[derive(Debug)]
pub enum Piece {
    /// Text.
    Text(String),
    /// What stands for an image.
    Image(Value),
}

impl Piece {
    /// The piece that a block is. An image goes into `media`.
    pub fn of(block: Block, media: &mut Media) -> Result<Self, ApiError> {
        if block.kind != "image" {
            return block.into_text().map(Self::Text);
        }
        media.check(&block.at, "\"image\"", Kind::Image)?;
        Ok(Self::Image(media.push(block.image()?)?))
    }
}

/// Content of these pieces: one string, if all are text.
pub fn said_in(pieces: Vec<Piece>) -> Value {
    let part = |piece| match piece {
        Piece::Text(text) if text.is_empty() => None,
        Piece::Text(text) => Some(text_part(text)),
        Piece::Image(part) => Some(part),
    };
    joined(pieces.into_iter().filter_map(part).collect())
}
