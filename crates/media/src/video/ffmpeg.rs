//! Containers, by an `ffmpeg` program.
//!
//! The file is given to it as its standard input, from a temporary file without a name: some containers can only be read by
//! going to and fro, and what has no name is gone with us, however we end. It is asked twice: first, without decoding
//! anything, when each frame is shown; then for the pixels of the chosen ones.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, BufRead, Read, Write as _},
    process::{Command, ExitStatus},
    time::Instant,
};

use super::{Container, Sampling, process, sample_indices, timed_out};
use crate::{Frame, Limits, MediaError, MediaErrorKind, Picture, Video};

/// Names the program.
const VARIABLE: &str = "VLLM_FFMPEG";
/// What it may know of our environment: what it takes to be started, and none of our secrets.
const ENVIRONMENT: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "SystemRoot"];
/// Frames of a video that are counted: about four hours at 60 a second.
const MAX_TOTAL: usize = 1_000_000;
/// Threads that it decodes with; streams of the language model run beside it.
const THREADS: &str = "2";

pub(super) fn decode(
    container: Container,
    bytes: &[u8],
    sampling: &Sampling,
    limits: &Limits,
) -> Result<Video, MediaError> {
    let program = env::var_os(VARIABLE).filter(|name| !name.is_empty()).unwrap_or_else(|| OsString::from("ffmpeg"));
    decode_with(&program, container, bytes, sampling, limits)
}

fn decode_with(
    program: &OsStr,
    container: Container,
    bytes: &[u8],
    sampling: &Sampling,
    limits: &Limits,
) -> Result<Video, MediaError> {
    let input = stored(bytes).map_err(|error| {
        MediaError::new(MediaErrorKind::Unsupported, format!("the video can't be put where ffmpeg finds it: {error}"))
    })?;
    let reader = Reader { program, container, input, deadline: Instant::now() + limits.decode_time, limits };
    let times = reader.times()?;
    let span = times[times.len() - 1] - times[0];
    // Of one frame, or many at once, no rate can be told.
    let fps = if span > 0.0 { (times.len() - 1) as f64 / span } else { f64::NAN };
    let wanted = sample_indices(times.len(), fps, sampling);
    let pictures = reader.pictures(&wanted)?;
    let at = wanted.iter().map(|&index| times[index] - times[0]);
    Ok(Video { frames: pictures.into_iter().zip(at).map(|(picture, at)| Frame { picture, at }).collect() })
}

/// A file without a name, which nobody else can open.
fn stored(bytes: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    Ok(file)
}

struct Reader<'a> {
    program: &'a OsStr,
    container: Container,
    input: File,
    deadline: Instant,
    limits: &'a Limits,
}

impl Reader<'_> {
    /// When each frame is shown, in seconds, in order. At least one.
    fn times(&self) -> Result<Vec<f64>, MediaError> {
        let mut command = self.command();
        command.args(["-c", "copy", "-f", "framecrc", "pipe:1"]);
        let (times, ending) = self.run(&mut command, times)?;
        let mut times = times?;
        if times.is_empty() {
            return Err(ending.error());
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    /// The frames of these indices. At least one; fewer than asked for if some can't be decoded.
    fn pictures(&self, wanted: &[usize]) -> Result<Vec<Picture>, MediaError> {
        let mut command = self.command();
        // Numbered anew, and as long as their numbers are apart: a constant rate is kept here, by leaving frames out and doubling
        // them, and the option against it has another name in every version.
        let filter = format!("select='{}',settb=1/25,setpts=N,fps=25", choice(wanted));
        command.args(["-vf", &filter, "-r", "25", "-frames:v", &wanted.len().to_string()]);
        command.args(["-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "pipe:1"]);
        let (pictures, ending) = self.run(&mut command, |output| pictures(output, wanted.len(), self.limits))?;
        let pictures = pictures?;
        if pictures.is_empty() { Err(ending.error()) } else { Ok(pictures) }
    }

    /// What all calls begin with.
    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-threads", THREADS]);
        command.args(["-max_pixels", &self.limits.pixels.to_string(), "-protocol_whitelist", "file"]);
        command.args(["-f", self.container.demuxer(), "-i", "file:/dev/stdin", "-map", "0:V:0"]);
        command
    }

    fn run<T>(
        &self,
        command: &mut Command,
        read: impl FnOnce(&mut dyn BufRead) -> T,
    ) -> Result<(T, Ending), MediaError> {
        let outcome = process::run(command, &self.input, self.deadline, |output| read(output));
        let outcome = outcome.map_err(|error| self.not_started(&error))?;
        if outcome.late {
            return Err(timed_out(self.limits));
        }
        Ok((outcome.read, Ending { status: outcome.status, complaint: outcome.complaint }))
    }

    fn not_started(&self, error: &io::Error) -> MediaError {
        let message = match error.kind() {
            io::ErrorKind::NotFound => format!(
                "reading this video takes the program ffmpeg, and there is no {} on this server: install it, or name it in \
                 {VARIABLE}. Animated GIF, WebP and PNG and lists of frames are read without it",
                self.program.display()
            ),
            _ => format!("the program {} for videos can't be started: {error}", self.program.display()),
        };
        MediaError::new(MediaErrorKind::Unsupported, message)
    }
}

/// How `ffmpeg` ended, when it gave nothing.
struct Ending {
    status: ExitStatus,
    complaint: String,
}

impl Ending {
    fn error(&self) -> MediaError {
        if self.complaint.contains("max pixel count") {
            return MediaError::new(MediaErrorKind::TooLarge, "the frames of this video have too many pixels");
        }
        let said: String = self.complaint.lines().next().unwrap_or_default().chars().take(200).collect();
        let message = match (said.is_empty(), self.status.success()) {
            (false, _) => format!("this video can't be read: {said}"),
            (true, true) => "this video has no frames".to_owned(),
            (true, false) => format!("this video can't be read: ffmpeg ended with {}", self.status),
        };
        MediaError::new(MediaErrorKind::Invalid, message)
    }
}

/// An expression of `ffmpeg`'s that holds for the frames of these indices: a search tree, as its parser takes no deep nesting
/// and no long sums, and asks it for each frame.
fn choice(indices: &[usize]) -> String {
    match indices {
        [] => "0".to_owned(),
        [one] => format!("eq(n,{one})"),
        _ => {
            let (low, high) = indices.split_at(indices.len() / 2);
            format!("if(lt(n,{}),{},{})", high[0], choice(low), choice(high))
        }
    }
}

/// The times in a list of packets: lines of `stream, decoded at, shown at, …` in units that a line `#tb 0: 1/90000` gives.
fn times(output: &mut dyn BufRead) -> Result<Vec<f64>, MediaError> {
    let mut unit = 1.0;
    let mut times = vec![];
    let mut line = String::new();
    // What isn't text, or breaks off, is the end; what there was before it counts.
    while {
        line.clear();
        output.take(4096).read_line(&mut line).is_ok_and(|read| read > 0)
    } {
        if let Some(base) = line.strip_prefix("#tb 0:") {
            let (numerator, denominator) = base.split_once('/').unwrap_or((base, "1"));
            let [numerator, denominator] = [numerator, denominator].map(|text| text.trim().parse().unwrap_or(1.0));
            unit = numerator / denominator;
        } else if !line.starts_with('#') {
            let mut fields = line.split(',').map(|field| field.trim().parse::<f64>());
            // Where it isn't known when a frame is shown, as in old AVIs, it is when it is decoded.
            let (decoded, shown) = (fields.nth(1), fields.next());
            let Some(at) = [shown, decoded].into_iter().flatten().flatten().find(|at| at.is_finite()) else { continue };
            if times.len() == MAX_TOTAL {
                let message = format!("the video is too long: {MAX_TOTAL} frames are allowed");
                return Err(MediaError::new(MediaErrorKind::TooLarge, message));
            }
            times.push(at * unit);
        }
    }
    Ok(times)
}

/// At most `most` pictures of a stream of PPM files: `P6`, width, height, `255`, then [height, width, 3].
fn pictures(output: &mut dyn BufRead, most: usize, limits: &Limits) -> Result<Vec<Picture>, MediaError> {
    let mut pictures = vec![];
    let mut budget = limits.video_pixels;
    while pictures.len() < most
        && let Some((width, height)) = ppm_header(output)
    {
        budget = super::spend(budget, width, height, limits)?;
        let mut pixels = vec![0; width as usize * height as usize * 3];
        if output.read_exact(&mut pixels).is_err() {
            break;
        }
        pictures.push(Picture::from_rgb(width, height, pixels));
    }
    Ok(pictures)
}

fn ppm_header(output: &mut dyn BufRead) -> Option<(u32, u32)> {
    let mut header = vec![];
    for _ in 0..3 {
        output.take(64).read_until(b'\n', &mut header).ok()?;
    }
    let mut words = str::from_utf8(&header).ok()?.split_ascii_whitespace();
    let is_ppm = words.next() == Some("P6");
    let (width, height) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (is_ppm && words.next() == Some("255")).then_some((width, height))
}

#[cfg(all(test, unix))]
mod tests;
