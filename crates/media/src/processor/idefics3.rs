//! Idefics 3 and SmolVLM: an image as tiles of one size, with all of it in the size of one behind them. Sources:
//! arXiv:2408.12637, arXiv:2504.05299.

use std::sync::Arc;

use super::one_size::HALF;
use super::patches::{Colours, Patches};
use super::prepared::{Part, Prepared, Run};
use super::recipe::{Recipe, Step, Tiles};
use super::resample::Filter;
use super::settings::{Files, Settings};
use super::{Detail, Family, ProcessorError};
use crate::{MediaError, MediaErrorKind, Picture, Sampling, Spread, Video};

/// No side becomes longer than this before it is cut into tiles.
const LONGEST: usize = 4096;

/// What the template writes for a video.
const VIDEO: &str = "<video>";

const AROUND: &str = "<fake_token_around_image>";
const WHOLE: &str = "<global-img>";

#[derive(Debug)]
pub(super) struct Idefics3 {
    image: Sizes,
    split: bool,
    /// SmolVLM's.
    video: Option<Sizes>,
    sampling: Sampling,
    /// Tokens of a tile.
    tokens: usize,
    pad: Arc<str>,
}

/// How pictures become tiles.
#[derive(Debug)]
struct Sizes {
    longest: usize,
    tile: usize,
    patches: Patches,
    filter: Filter,
    colours: Arc<Colours>,
}

impl Idefics3 {
    pub(super) fn read(files: &Files, smol: bool) -> Result<Self, ProcessorError> {
        files.image.class(&["Idefics3ImageProcessor", "SmolVLMImageProcessor"])?;
        let side = files.vision.count("patch_size")?.ok_or_else(|| files.vision.fault("has no patch_size"))?;
        let patches = Patches { side, merge: 1, frames: 1 };
        let image = Sizes::read(&files.image, patches, files.image.section("size"))?;
        let video = if smol {
            // A size of its own goes before that of the sampling, as the reference has it.
            let size = match files.video.section("size") {
                size if size.count("longest_edge")?.is_some() => size,
                _ => files.video.section("video_sampling").section("video_size"),
            };
            let sizes = Sizes::read(&files.video, patches, size)?;
            Some(Sizes { longest: sizes.longest.min(LONGEST), ..sizes })
        } else {
            None
        };
        let scale = files.config.count("scale_factor")?.unwrap_or(2);
        let tokens = (image.tile / side / scale).pow(2);
        files.processor.agrees("image_seq_len", tokens, "config.json and the size of a tile")?;
        if video.as_ref().is_some_and(|video| video.tile != image.tile) {
            return Err(files.video.fault("max_image_size isn't that of images"));
        }
        if tokens == 0 {
            return Err(files.image.fault("max_image_size has no room for a token"));
        }
        let asked = files.video.section("video_sampling");
        let sampling = Sampling {
            fps: asked.number("fps")?,
            max_frames: asked.count("max_frames")?,
            spread: Spread::Ends,
            ..Sampling::default()
        };
        let pad = files.token("image_token", "<image>")?.into();
        let split = files.image.flag("do_image_splitting")?.unwrap_or(true);
        Ok(Self { image, split, video, sampling, tokens, pad })
    }

    fn tile_text(&self, name: &str) -> String {
        format!("{AROUND}{name}{}", self.pad.repeat(self.tokens))
    }

    fn runs(&self, part: usize, tiles: usize) -> impl Iterator<Item = Run> {
        let len = self.tokens;
        (0..tiles).map(move |tile| Run { part, first: tile * len, len, grid: None, bidirectional: false })
    }
}

impl Sizes {
    fn read(settings: &Settings, patches: Patches, size: Settings) -> Result<Self, ProcessorError> {
        settings.refuse("do_resize", false)?;
        Ok(Self {
            longest: size.count("longest_edge")?.unwrap_or(4 * 364),
            tile: settings.section("max_image_size").count("longest_edge")?.unwrap_or(364),
            patches,
            filter: settings.filter(Filter::Lanczos)?,
            colours: Arc::new(settings.colours(HALF, HALF)?),
        })
    }

    /// The size at which the longer side has its length: the other is made even, and then a side above [`LONGEST`] is
    /// shortened.
    fn first(&self, picture: &Picture) -> [usize; 2] {
        let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
        let ratio = width / height;
        let even = |side: f64| (side as usize).next_multiple_of(2).max(1);
        let longest = self.longest;
        let [width, height] = if width >= height {
            [longest, even(longest as f64 / ratio)]
        } else {
            [even(longest as f64 * ratio), longest]
        };
        if width.max(height) <= LONGEST {
            return [width.max(1), height.max(1)];
        }
        let ratio = width as f64 / height as f64;
        let [width, height] = if width >= height {
            [LONGEST, (LONGEST as f64 / ratio) as usize]
        } else {
            [(LONGEST as f64 * ratio) as usize, LONGEST]
        };
        [width.max(1), height.max(1)]
    }

    /// Then both sides are made of whole tiles.
    fn whole_tiles(&self, [width, height]: [usize; 2]) -> [usize; 2] {
        let ratio = width as f64 / height as f64;
        if width >= height {
            let width = width.next_multiple_of(self.tile);
            [width, ((width as f64 / ratio) as usize).next_multiple_of(self.tile)]
        } else {
            let height = height.next_multiple_of(self.tile);
            [((height as f64 * ratio) as usize).next_multiple_of(self.tile), height]
        }
    }

    fn recipe(&self, sizes: &[[usize; 2]], tiles: bool) -> Arc<Recipe> {
        let filter = self.filter;
        Arc::new(Recipe {
            steps: sizes.iter().map(|&to| Step::Resize { to, filter }).collect(),
            tiles: tiles.then_some(Tiles { side: self.tile, filter }),
            patches: self.patches,
            colours: self.colours.clone(),
        })
    }
}

impl Family for Idefics3 {
    fn placeholders(&self) -> Vec<Arc<str>> {
        let video = self.video.is_some().then(|| VIDEO.into());
        [self.pad.clone()].into_iter().chain(video).collect()
    }

    fn pads(&self) -> Vec<Arc<str>> {
        vec![self.pad.clone()]
    }

    fn image(&self, picture: &Picture, detail: Detail) -> Result<Prepared, MediaError> {
        let sizes = &self.image;
        let first = sizes.first(picture);
        let second = sizes.whole_tiles(first);
        let split = self.split && detail != Detail::Low;
        let [columns, rows] = second.map(|side| side / sizes.tile);
        let (recipe, tiles) = match (split, rows * columns) {
            (false, _) => (sizes.recipe(&[first, [sizes.tile; 2]], false), 1),
            (true, 1) => (sizes.recipe(&[first, second], false), 1),
            (true, tiles) => (sizes.recipe(&[first, second], true), tiles + 1),
        };
        let mut text = String::new();
        if tiles > 1 {
            for row in 1..=rows {
                (1..=columns).for_each(|column| text.push_str(&self.tile_text(&format!("<row_{row}_col_{column}>"))));
                text.push('\n');
            }
            text.push('\n');
        }
        text.push_str(&self.tile_text(WHOLE));
        text.push_str(AROUND);
        Ok(Prepared {
            placeholder: self.pad.clone(),
            text,
            pad: self.pad.clone(),
            runs: self.runs(0, tiles).collect(),
            parts: vec![Part::new([picture.clone()], recipe, tiles * self.tokens)],
        })
    }

    fn takes_video(&self) -> bool {
        self.video.is_some()
    }

    fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Each frame is an image without tiles, with its time before it. The video is said to be as long as its last frame's
    /// time.
    fn video(&self, video: &Video) -> Result<Prepared, MediaError> {
        let Some(sizes) = &self.video else {
            return Err(MediaError::new(
                MediaErrorKind::Unsupported,
                "Idefics 3 doesn't take videos; send single frames as images",
            ));
        };
        let frames = &video.frames;
        let count = spoken(frames.len()).ok_or_else(|| {
            MediaError::new(
                MediaErrorKind::TooLarge,
                format!("{} frames, at most 999 can be told to this model", frames.len()),
            )
        })?;
        let recipe = sizes.recipe(&[sizes.first(&frames[0].picture), [sizes.tile; 2]], false);
        let seconds = |at: f64| at.max(0.0) as u64;
        let all = seconds(frames[frames.len() - 1].at);
        let (hours, minutes, rest) = (all / 3600, all / 60 % 60, all % 60);
        let mut text = format!(
            "You are provided the following series of {count} frames from a {hours}:{minutes:02}:{rest:02} [H:MM:SS] video.\n"
        );
        let (mut runs, mut parts) = (vec![], vec![]);
        for (part, frame) in frames.iter().enumerate() {
            let at = seconds(frame.at);
            text.push_str(&format!("\nFrame from {:02}:{:02}:{}{AROUND}", at / 60, at % 60, self.tile_text(WHOLE)));
            runs.extend(self.runs(part, 1));
            parts.push(Part::new([frame.picture.clone()], recipe.clone(), self.tokens));
        }
        text.push_str("\n\n");
        Ok(Prepared { placeholder: VIDEO.into(), text, pad: self.pad.clone(), runs, parts })
    }
}

/// A number below 1000 in words: "sixty-four", "one hundred and one".
fn spoken(number: usize) -> Option<String> {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let below_hundred = |number: usize| match (number / 10, number % 10) {
        (0 | 1, _) => SMALL[number].to_owned(),
        (tens, 0) => TENS[tens].to_owned(),
        (tens, ones) => format!("{}-{}", TENS[tens], SMALL[ones]),
    };
    match (number / 100, number % 100) {
        (0, rest) => Some(below_hundred(rest)),
        (hundreds @ 1..10, 0) => Some(format!("{} hundred", SMALL[hundreds])),
        (hundreds @ 1..10, rest) => Some(format!("{} hundred and {}", SMALL[hundreds], below_hundred(rest))),
        _ => None,
    }
}
