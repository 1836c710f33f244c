//! What a checkpoint's files say about processing: typed reads of JSON, with errors that name file and key.

use serde_json::Value;
use vllm_checkpoint::Checkpoint;

use super::{Colours, Filter, ProcessorError};

/// An object of a file, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// E.g. `config.json: vision_config`.
    place: String,
    values: Value,
}

/// Everything that the families read.
#[derive(Debug)]
pub(super) struct Files {
    /// `config.json`.
    pub(super) config: Settings,
    /// `vision_config` of it.
    pub(super) vision: Settings,
    /// `processor_config.json`; empty where there is none.
    pub(super) processor: Settings,
    /// How images are processed.
    pub(super) image: Settings,
    /// How videos are processed: where nothing says, as images.
    pub(super) video: Settings,
    /// `tokenizer_config.json`; empty where there is none.
    pub(super) tokenizer: Settings,
}

impl Files {
    /// Since version 5 transformers writes all into `processor_config.json`, which goes before the older files.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self, ProcessorError> {
        let optional =
            |file: &str| Ok::<_, ProcessorError>(checkpoint.side_file(file)?.map(|v| Settings::new(file, v)));
        let required =
            |file: &str| Ok::<_, ProcessorError>(optional(file)?.unwrap_or_else(|| Settings::new(file, Value::Null)));
        let config = Settings::new("config.json", checkpoint.config().clone());
        let processor = required("processor_config.json")?;
        let image = match processor.part("image_processor") {
            Some(image) => image,
            None => optional("preprocessor_config.json")?.ok_or_else(|| {
                config.fault("has a vision_config, but there is no preprocessor_config.json beside it that says how images are processed")
            })?,
        };
        let video = match processor.part("video_processor") {
            Some(video) => video,
            None => optional("video_preprocessor_config.json")?.unwrap_or_else(|| image.clone()),
        };
        let tokenizer = required("tokenizer_config.json")?;
        Ok(Self { vision: config.section("vision_config"), config, processor, image, video, tokenizer })
    }

    /// The text of a token with a role, such as `image_token`: as the tokenizer's or the processor's file names it.
    pub(super) fn token(&self, role: &str, default: &str) -> Result<String, ProcessorError> {
        for settings in [&self.tokenizer, &self.tokenizer.section("extra_special_tokens"), &self.processor] {
            let value = &settings.values[role];
            if let Some(text) = value.as_str().or_else(|| value["content"].as_str()) {
                return Ok(text.to_owned());
            }
            if !value.is_null() {
                return Err(settings.fault(format!("{role} is {value}, wanted a token's text")));
            }
        }
        Ok(default.to_owned())
    }
}

/// A size as the files spell it; which of its numbers mean something is the family's to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) shortest: Option<usize>,
    pub(super) longest: Option<usize>,
    pub(super) height: Option<usize>,
    pub(super) width: Option<usize>,
}

impl Settings {
    pub(super) fn new(place: &str, values: Value) -> Self {
        Self { place: place.to_owned(), values }
    }

    /// An object in it; empty where there is none.
    pub(super) fn section(&self, key: &str) -> Self {
        self.part(key).unwrap_or_else(|| Self::new(&format!("{}: {key}", self.place), Value::Null))
    }

    fn part(&self, key: &str) -> Option<Self> {
        let values = self.values.get(key).filter(|values| values.is_object())?;
        Some(Self::new(&format!("{}: {key}", self.place), values.clone()))
    }

    /// An error about it.
    pub(super) fn fault(&self, what: impl Into<String>) -> ProcessorError {
        ProcessorError::Settings { place: self.place.clone(), what: what.into() }
    }

    fn read<'v, T>(
        &'v self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, ProcessorError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                read(value).map(Some).ok_or_else(|| self.fault(format!("{key} is {value}, wanted {wanted}")))
            }
        }
    }

    /// A number of things, at least one. The bound keeps every product of two of them in range.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, ProcessorError> {
        self.read(key, "a whole number, at least 1", positive)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ProcessorError> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ProcessorError> {
        self.read(key, "a number", Value::as_f64)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, ProcessorError> {
        self.read(key, "a text", Value::as_str)
    }

    /// Refuses a switch in a position that isn't supported.
    pub(super) fn refuse(&self, key: &str, position: bool) -> Result<(), ProcessorError> {
        if self.flag(key)? == Some(position) {
            return Err(self.fault(format!("{key} is {position}, which isn't supported for this family")));
        }
        Ok(())
    }

    /// That it agrees with what another file says.
    pub(super) fn agrees(&self, key: &str, with: usize, other: &str) -> Result<(), ProcessorError> {
        match self.count(key)? {
            Some(found) if found != with => Err(self.fault(format!("{key} is {found}, but by {other} it is {with}"))),
            _ => Ok(()),
        }
    }

    /// The class that processes images, without the suffix of its implementation. Refused if it is none of these.
    pub(super) fn class(&self, known: &[&'static str]) -> Result<Option<&'static str>, ProcessorError> {
        let Some(class) = self.text("image_processor_type")? else { return Ok(None) };
        let plain = class.trim_end_matches("Fast").trim_end_matches("Pil");
        match known.iter().find(|known| **known == plain) {
            Some(known) => Ok(Some(known)),
            None => Err(self.fault(format!(
                "image_processor_type is {class}, which isn't supported for this family; supported: {}",
                known.join(", ")
            ))),
        }
    }

    /// `{"height": 224, "width": 224}`, `{"longest_edge": 1024}` and so on; a bare number is a square, or the shortest
    /// edge.
    pub(super) fn size(&self, key: &str, number_is_square: bool) -> Result<Option<Size>, ProcessorError> {
        let edges = |value: &Value| {
            if let Some(number) = positive(value) {
                let number = Some(number);
                return Some(match number_is_square {
                    true => Size { height: number, width: number, ..Size::default() },
                    false => Size { shortest: number, ..Size::default() },
                });
            }
            let edge = |names: [&str; 2]| {
                let value = names.iter().map(|name| &value[*name]).find(|value| !value.is_null());
                value.map_or(Some(None), |value| positive(value).map(Some))
            };
            value.as_object()?;
            Some(Size {
                shortest: edge(["shortest_edge", "min_pixels"])?,
                longest: edge(["longest_edge", "max_pixels"])?,
                height: edge(["height"; 2])?,
                width: edge(["width"; 2])?,
            })
        };
        self.read(key, "a size", edges)
    }

    /// `resample`, by the numbers of Pillow.
    pub(super) fn filter(&self, default: Filter) -> Result<Filter, ProcessorError> {
        let filter =
            self.read("resample", "1 (Lanczos), 2 (bilinear) or 3 (bicubic)", |value| match value.as_u64()? {
                1 => Some(Filter::Lanczos),
                2 => Some(Filter::Bilinear),
                3 => Some(Filter::Bicubic),
                _ => None,
            })?;
        Ok(filter.unwrap_or(default))
    }

    /// What becomes of a colour's level.
    pub(super) fn colours(&self, mean: [f64; 3], std: [f64; 3]) -> Result<Colours, ProcessorError> {
        let three = |key: &str, default: [f64; 3]| {
            let read = |value: &Value| match value {
                Value::Array(list) => {
                    let list: Vec<f64> = list.iter().filter_map(Value::as_f64).collect();
                    list.try_into().ok()
                }
                number => number.as_f64().map(|number| [number; 3]),
            };
            Ok::<_, ProcessorError>(self.read(key, "a number for each of red, green, blue", read)?.unwrap_or(default))
        };
        let std = three("image_std", std)?;
        if std.contains(&0.0) {
            return Err(self.fault("image_std has a 0, by which nothing can be divided"));
        }
        let scale = match self.flag("do_rescale")? {
            Some(false) => None,
            _ => Some(self.number("rescale_factor")?.unwrap_or(1.0 / 255.0)),
        };
        let normalise = match self.flag("do_normalize")? {
            Some(false) => None,
            _ => Some((three("image_mean", mean)?, std)),
        };
        Ok(Colours::new(scale, normalise))
    }
}

fn positive(value: &Value) -> Option<usize> {
    value.as_u64().filter(|&n| (1..1 << 31).contains(&n)).and_then(|n| usize::try_from(n).ok())
}
