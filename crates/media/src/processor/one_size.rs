//! Processors that bring every image to one size: CLIP's and SigLIP's.

use std::sync::Arc;

use super::patches::{Colours, Patches};
use super::recipe::{Recipe, Step};
use super::resample::Filter;
use super::settings::{Files, Settings, Size};
use super::{Part, ProcessorError};
use crate::Picture;

/// Brings every image to one size.
#[derive(Debug)]
pub(super) struct OneSize {
    edge: Edge,
    filter: Filter,
    patches: Patches,
    colours: Arc<Colours>,
}

/// Sides are [width, height].
#[derive(Debug)]
enum Edge {
    /// Stretched to it.
    Both([usize; 2]),
    /// The shorter side to this length, of which the middle is kept.
    Shorter(usize, [usize; 2]),
}

/// What a class does where the files say nothing.
pub(super) struct Defaults {
    pub(super) side: usize,
    pub(super) shorter: bool,
    pub(super) filter: Filter,
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
}

pub(super) const HALF: [f64; 3] = [0.5; 3];
pub(super) const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
pub(super) const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

impl OneSize {
    pub(super) fn read(files: &Files, defaults: Defaults) -> Result<Self, ProcessorError> {
        let image = &files.image;
        image.refuse("do_resize", false)?;
        image.refuse("do_pad", true)?;
        let side = Some(defaults.side);
        let size = image.size("size", !defaults.shorter)?.unwrap_or(match defaults.shorter {
            true => Size { shortest: side, ..Size::default() },
            false => Size { height: side, width: side, ..Size::default() },
        });
        let crop = match image.flag("do_center_crop")?.unwrap_or(defaults.shorter) {
            true => Some(
                image.size("crop_size", true)?.map_or(Ok([defaults.side; 2]), |size| both(image, "crop_size", size))?,
            ),
            false => None,
        };
        let edge = match (size, crop) {
            (Size { shortest: Some(shorter), longest: None, height: None, width: None }, Some(middle)) => {
                Edge::Shorter(shorter, middle)
            }
            (_, Some(_)) => return Err(image.fault("do_center_crop needs a size with shortest_edge alone")),
            (size, None) => Edge::Both(both(image, "size", size)?),
        };
        let patch = files.vision.count("patch_size")?.ok_or_else(|| files.vision.fault("has no patch_size"))?;
        let [width, height] = edge.seen();
        if width.min(height) < patch {
            return Err(image.fault(format!("images of {width}×{height} have no patch of {patch} pixels")));
        }
        Ok(Self {
            edge,
            filter: image.filter(defaults.filter)?,
            patches: Patches { side: patch, merge: 1, frames: 1 },
            colours: Arc::new(image.colours(defaults.mean, defaults.std)?),
        })
    }

    /// Patches of an image.
    pub(super) fn patches(&self) -> usize {
        let [width, height] = self.edge.seen();
        self.patches.grid(width, height).iter().product()
    }

    /// An image that gives this many features.
    pub(super) fn part(&self, picture: &Picture, tokens: usize) -> Part {
        let filter = self.filter;
        let resize = match self.edge {
            Edge::Both(to) => Step::Resize { to, filter },
            Edge::Shorter(shorter, middle) => {
                let (width, height) = (picture.width() as usize, picture.height() as usize);
                let longer = |long: usize, short: usize| (shorter as u64 * long as u64 / short as u64) as usize;
                let to =
                    if width <= height { [shorter, longer(height, width)] } else { [longer(width, height), shorter] };
                Step::ResizeMiddle { to, middle, filter }
            }
        };
        let recipe = Recipe { steps: vec![resize], tiles: None, patches: self.patches, colours: self.colours.clone() };
        Part::new([picture.clone()], Arc::new(recipe), tokens)
    }
}

impl Edge {
    fn seen(&self) -> [usize; 2] {
        match *self {
            Self::Both(size) | Self::Shorter(_, size) => size,
        }
    }
}

/// Width and height, and nothing else.
fn both(settings: &Settings, key: &str, size: Size) -> Result<[usize; 2], ProcessorError> {
    match size {
        Size { shortest: None, longest: None, height: Some(height), width: Some(width) } => Ok([width, height]),
        _ => Err(settings.fault(format!("{key} must have height and width, and nothing else"))),
    }
}
