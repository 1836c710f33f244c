//! Qwen2-VL, Qwen2.5-VL, Qwen3-VL: images in their own shape, videos in steps of two frames, positions on three axes.
//! Sources: arXiv:2409.12191, arXiv:2502.13923, arXiv:2511.21631.
//!
//! The towers of all three attend within one step of time only, so every step of a video is a part of its own.

use std::sync::Arc;

use vllm_platform::SpanGrid;

use super::one_size::{CLIP_MEAN, CLIP_STD, HALF};
use super::patches::{Colours, Patches};
use super::prepared::{Part, Prepared, Run};
use super::recipe::{Recipe, Step};
use super::resample::Filter;
use super::settings::{Files, Settings, Size};
use super::{Detail, Family, LOW_SIDE, ProcessorError};
use crate::{Frame, MediaError, MediaErrorKind, Picture, Sampling, Spread, Video};

const START: &str = "<|vision_start|>";
const END: &str = "<|vision_end|>";

#[derive(Debug)]
pub(super) struct QwenVl {
    image: Budget,
    video: Budget,
    frames: Frames,
    sampling: Sampling,
    image_pad: Arc<str>,
    video_pad: Arc<str>,
    video_placeholder: Arc<str>,
}

/// How a video's steps are told apart in time, and what their frames' sizes depend on.
#[derive(Debug)]
enum Frames {
    /// Qwen2-VL: steps are counted.
    Counted,
    /// Qwen2.5-VL: positions in time are seconds, times this.
    Seconds(f32),
    /// Qwen3-VL: the text says when each step is, and the frames share a number of pixels.
    Told,
}

/// How large pictures become.
#[derive(Debug)]
struct Budget {
    min_pixels: usize,
    max_pixels: usize,
    /// Tokens of a video, by which its frames are limited if there are many (`cap_pixels_per_frame`).
    max_video_tokens: Option<usize>,
    patches: Patches,
    filter: Filter,
    colours: Arc<Colours>,
}

impl QwenVl {
    pub(super) fn read(files: &Files, model: &str) -> Result<Self, ProcessorError> {
        let vision = &files.vision;
        let third = model.starts_with("qwen3");
        files.image.class(&["Qwen2VLImageProcessor"])?;
        let patch = if third { 16 } else { 14 };
        let patches = Patches {
            side: vision.count("patch_size")?.unwrap_or(patch),
            merge: vision.count("spatial_merge_size")?.unwrap_or(2),
            frames: vision.count("temporal_patch_size")?.unwrap_or(2),
        };
        let frames = match model {
            "qwen2_vl" => Frames::Counted,
            "qwen2_5_vl" => Frames::Seconds(vision.number("tokens_per_second")?.unwrap_or(4.0) as f32),
            _ => Frames::Told,
        };
        let (mean, std) = if third { (HALF, HALF) } else { (CLIP_MEAN, CLIP_STD) };
        let video_pad = files.token("video_token", "<|video_pad|>")?;
        // As it was made for: the steps' own marks take the place of the template's. (transformers leaves those around the
        // steps since version 5.12; mlx-vlm and vLLM don't.)
        let video_placeholder = if third { format!("{START}{video_pad}{END}") } else { video_pad.clone() };
        let sampling = Sampling {
            fps: files.video.number("fps")?,
            min_frames: files.video.count("min_frames")?,
            multiple_of: if third { 1 } else { patches.frames },
            spread: if third { Spread::Ends } else { Spread::Starts },
            ..Sampling::default()
        };
        let video_area = patches.side * patches.side * 4;
        Ok(Self {
            image: Budget::read(&files.image, patches, [56 * 56, 28 * 28 * 1280], (CLIP_MEAN, CLIP_STD), None)?,
            video: Budget::read(
                &files.video,
                patches,
                [128 * video_area, 768 * video_area],
                (mean, std),
                Some(if third { 768 } else { 128_000 }),
            )?,
            frames,
            sampling,
            image_pad: files.token("image_token", "<|image_pad|>")?.into(),
            video_pad: video_pad.into(),
            video_placeholder: video_placeholder.into(),
        })
    }
}

impl Budget {
    fn read(
        settings: &Settings,
        patches: Patches,
        [min, max]: [usize; 2],
        (mean, std): ([f64; 3], [f64; 3]),
        video_tokens: Option<usize>,
    ) -> Result<Self, ProcessorError> {
        settings.refuse("do_resize", false)?;
        settings.agrees("patch_size", patches.side, "config.json's vision_config")?;
        settings.agrees("merge_size", patches.merge, "config.json's vision_config")?;
        settings.agrees("temporal_patch_size", patches.frames, "config.json's vision_config")?;
        let size = settings.size("size", false)?.unwrap_or(Size {
            shortest: Some(min),
            longest: Some(max),
            ..Size::default()
        });
        let min_pixels = settings.count("min_pixels")?.or(size.shortest);
        let max_pixels = settings.count("max_pixels")?.or(size.longest);
        let (Some(min_pixels), Some(max_pixels)) = (min_pixels, max_pixels) else {
            return Err(
                settings.fault("size must have shortest_edge and longest_edge, which here are numbers of pixels")
            );
        };
        let max_video_tokens = match (video_tokens, settings.flag("cap_pixels_per_frame")?) {
            (Some(tokens), Some(true)) => Some(settings.count("max_video_tokens")?.unwrap_or(tokens)),
            _ => None,
        };
        let colours = Arc::new(settings.colours(mean, std)?);
        Ok(Self {
            min_pixels,
            max_pixels,
            max_video_tokens,
            patches,
            filter: settings.filter(Filter::Bicubic)?,
            colours,
        })
    }

    /// Pixels of a side of what becomes a token.
    fn factor(&self) -> usize {
        self.patches.side * self.patches.merge
    }

    /// Sides near those of the picture that whole tokens fill; `steps` pictures of them have no fewer than `min` and no
    /// more than `max` pixels, where each of `frames` is to have its share.
    fn fit(&self, size: [f64; 2], frames: f64, steps: f64, [min, max]: [usize; 2]) -> Result<[usize; 2], MediaError> {
        let [width, height] = size;
        if width.max(height) / width.min(height) > 200.0 {
            return Err(MediaError::new(
                MediaErrorKind::Invalid,
                format!("{width}×{height} pixels: the longer side may be at most 200 times the shorter one"),
            ));
        }
        let factor = self.factor() as f64;
        let sides = size.map(|side| (side / factor).round_ties_even() * factor);
        let pixels = steps * sides[0] * sides[1];
        let (min, max) = (min as f64, max as f64);
        let sides = if pixels > max {
            let beta = (frames * height * width / max).sqrt();
            size.map(|side| ((side / beta / factor).floor() * factor).max(factor))
        } else if pixels < min {
            let beta = (min / (frames * height * width)).sqrt();
            size.map(|side| (side * beta / factor).ceil() * factor)
        } else {
            sides
        };
        Ok(sides.map(|side| side as usize))
    }

    fn recipe(&self, to: [usize; 2]) -> Arc<Recipe> {
        let steps = vec![Step::Resize { to, filter: self.filter }];
        Arc::new(Recipe { steps, tiles: None, patches: self.patches, colours: self.colours.clone() })
    }

    /// Tokens of a row, and of all rows.
    fn tokens(&self, [width, height]: [usize; 2]) -> (usize, usize) {
        let columns = width / self.factor();
        (columns, columns * (height / self.factor()))
    }
}

fn sides(picture: &Picture) -> [f64; 2] {
    [picture.width(), picture.height()].map(f64::from)
}

impl QwenVl {
    /// The size of each of a video's frames.
    fn frame_size(&self, frames: &[Frame]) -> Result<[usize; 2], MediaError> {
        let budget = &self.video;
        let (min, max, step) = (budget.min_pixels, budget.max_pixels, budget.patches.frames);
        let mut size = sides(&frames[0].picture);
        let factor = budget.factor();
        let area = factor * factor;
        let floor = (min as f64 * 1.05) as usize;
        let count = frames.len();
        if let Frames::Told = self.frames {
            // All pixels of the video count, and one frame alone as a step.
            let count = count.max(step);
            let max = match budget.max_video_tokens {
                Some(tokens) => (tokens * area).min(max / count).max(floor) * count,
                None => max,
            };
            let factor = factor as f64;
            if size[0].min(size[1]) < factor {
                let scale = (factor / size[0]).max(factor / size[1]);
                size = size.map(|side| (side * scale).floor());
            }
            let steps = (count as f64 / step as f64).round_ties_even() * step as f64;
            return budget.fit(size, count as f64, steps, [min, max]);
        }
        let max = match budget.max_video_tokens {
            Some(tokens) => {
                let total = ((tokens * area) as f64 * 0.9) as usize;
                max.min(total * step / count).max(floor)
            }
            None => max,
        };
        budget.fit(size, 1.0, 1.0, [min, max])
    }

    /// Where a step stands in time, after the video's first.
    fn time(&self, step: usize, frames: &[Frame]) -> usize {
        match self.frames {
            Frames::Counted => step,
            Frames::Told => 0,
            Frames::Seconds(per_second) => {
                let seconds = frames[frames.len() - 1].at - frames[0].at;
                let between = seconds.max(0.0) / (frames.len() - 1).max(1) as f64;
                // In f32, as the reference: that decides where a product is just about whole.
                let interval = per_second * (self.video.patches.frames as f64 * between) as f32;
                (step as f32 * interval) as usize
            }
        }
    }
}

impl Family for QwenVl {
    fn placeholders(&self) -> Vec<Arc<str>> {
        vec![self.image_pad.clone(), self.video_placeholder.clone()]
    }

    fn pads(&self) -> Vec<Arc<str>> {
        vec![self.image_pad.clone(), self.video_pad.clone()]
    }

    fn image(&self, picture: &Picture, detail: Detail) -> Result<Prepared, MediaError> {
        let budget = &self.image;
        let max = match detail {
            Detail::Low => budget.max_pixels.min(LOW_SIDE * LOW_SIDE).max(budget.min_pixels),
            Detail::Auto | Detail::High => budget.max_pixels,
        };
        let to = budget.fit(sides(picture), 1.0, 1.0, [budget.min_pixels, max])?;
        let (columns, tokens) = budget.tokens(to);
        let grid = Some(SpanGrid { columns, time: 0, continues: false });
        Ok(Prepared {
            placeholder: self.image_pad.clone(),
            text: self.image_pad.repeat(tokens),
            pad: self.image_pad.clone(),
            runs: vec![Run { part: 0, first: 0, len: tokens, grid, bidirectional: false }],
            parts: vec![Part::new([picture.clone()], budget.recipe(to), tokens)],
        })
    }

    fn takes_video(&self) -> bool {
        true
    }

    /// No more frames than by default, whatever the files' `max_frames`: that is 768, more than most contexts hold.
    fn sampling(&self) -> Sampling {
        self.sampling
    }

    fn video(&self, video: &Video) -> Result<Prepared, MediaError> {
        let to = self.frame_size(&video.frames)?;
        let recipe = self.video.recipe(to);
        let (columns, tokens) = self.video.tokens(to);
        let told = matches!(self.frames, Frames::Told);
        let pads = self.video_pad.repeat(tokens);
        let (mut text, mut runs, mut parts) = (String::new(), vec![], vec![]);
        for (step, frames) in video.frames.chunks(self.video.patches.frames).enumerate() {
            if told {
                let at = f64::midpoint(frames[0].at, frames[frames.len() - 1].at);
                text.push_str(&format!("<{at:.1} seconds>{START}{pads}{END}"));
            } else {
                text.push_str(&pads);
            }
            let time = self.time(step, &video.frames);
            let grid = Some(SpanGrid { columns, time, continues: step > 0 && !told });
            runs.push(Run { part: step, first: 0, len: tokens, grid, bidirectional: false });
            let mut pictures: Vec<Picture> = frames.iter().map(|frame| frame.picture.clone()).collect();
            // Frames that follow are the last one again; `Patches` repeats only a single one.
            if pictures.len() > 1 {
                pictures.resize(self.video.patches.frames, frames[frames.len() - 1].picture.clone());
            }
            parts.push(Part::new(pictures, recipe.clone(), tokens));
        }
        let (placeholder, pad) = (self.video_placeholder.clone(), self.video_pad.clone());
        Ok(Prepared { placeholder, text, pad, runs, parts })
    }
}
