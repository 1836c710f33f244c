//! Decoded packets, mixed down, resampled and put in a row.

use symphonia::core::audio::GenericAudioBufferRef;

use super::{DecodeError, Limits, Stated};
use crate::{Resampler, Sound};

/// −80 dB of full scale: a sound that is never louder is silence.
const SILENCE: f32 = 1e-4;

/// A sample beyond this is no sound in any scale: integers of 16 bits written as floats go to 32768. Its square still is a float.
const LOUDEST: f32 = 1e6;

/// The channel so far.
pub(super) struct Gather<'a> {
    limits: &'a Limits,
    stated: Option<Stated>,
    /// What is given back, at the rate wanted.
    samples: Vec<f32>,
    /// None: the file's own.
    wanted: Option<u32>,
    /// To that rate. Known from the first packet on.
    resampler: Option<Resampler>,
    /// A packet, mixed down.
    mixed: Vec<f32>,
    /// Samples at the file's rate.
    heard: usize,
    /// Samples before the first of them.
    left_out: usize,
    /// Known from the first packet on.
    rate: Option<u32>,
    loudest: f32,
    /// One a channel, kept for the next packet.
    planes: Vec<Vec<f32>>,
    good: usize,
    bad: usize,
    /// What was wrong with the last bad packet.
    complaint: &'static str,
}

impl<'a> Gather<'a> {
    pub fn new(stated: Option<Stated>, wanted: Option<u32>, limits: &'a Limits) -> Self {
        Self {
            limits,
            stated,
            samples: Vec::new(),
            wanted,
            resampler: None,
            mixed: Vec::new(),
            heard: 0,
            left_out: 0,
            rate: None,
            loudest: 0.0,
            planes: Vec::new(),
            good: 0,
            bad: 0,
            complaint: "",
        }
    }

    /// What follows isn't in the stated length.
    pub fn forget_stated(&mut self) {
        self.stated = None;
    }

    /// Leaves out a packet.
    pub fn skip(&mut self, complaint: &'static str) {
        self.bad += 1;
        self.complaint = complaint;
    }

    /// Mixes a packet down. The first `lead` seconds of all are left out.
    pub fn add(&mut self, packet: &GenericAudioBufferRef<'_>, lead: f64) -> Result<(), DecodeError> {
        let frames = packet.frames();
        self.good += 1;
        let rate = packet.spec().rate();
        if self.rate != Some(rate) {
            self.begin(rate)?;
        }
        let channels = packet.num_planes();
        if channels > self.limits.channels {
            let most = self.limits.channels;
            return Err(DecodeError::Unsupported(format!(
                "the audio has {channels} channels: at most {most} are allowed"
            )));
        }
        packet.copy_to_vecs_planar::<f32>(&mut self.planes);

        let lead = (lead * f64::from(rate)).round() as usize;
        let early = lead.saturating_sub(self.left_out).min(frames);
        self.left_out += early;
        let most = (self.limits.duration.as_secs_f64() * f64::from(rate)) as usize;
        if self.heard + frames - early > most {
            return Err(self.too_long());
        }
        self.mixed.clear();
        for at in early..frames {
            let mut sum = 0.0;
            for plane in &self.planes[..channels] {
                let sample = plane[at];
                // NaN isn't within either.
                if !(-LOUDEST..=LOUDEST).contains(&sample) {
                    let at = (self.heard + at - early) as f64 / f64::from(rate);
                    return Err(DecodeError::NotFinite { value: sample, at });
                }
                self.loudest = self.loudest.max(sample.abs());
                sum += sample;
            }
            self.mixed.push(sum / channels as f32);
        }
        self.heard += self.mixed.len();
        match &mut self.resampler {
            Some(resampler) => resampler.push_into(&self.mixed, &mut self.samples),
            None => self.samples.extend_from_slice(&self.mixed),
        }
        Ok(())
    }

    /// What is only known with the first packet: a decoder may correct the container.
    fn begin(&mut self, rate: u32) -> Result<(), DecodeError> {
        if let Some(before) = self.rate {
            return Err(DecodeError::Unsupported(format!(
                "the audio's rate changes on its way from {before} to {rate} Hz"
            )));
        }
        if !self.limits.rates.contains(&rate) {
            let (low, high) = (self.limits.rates.start(), self.limits.rates.end());
            return Err(DecodeError::Unsupported(format!(
                "the audio has {rate} samples a second: {low} to {high} are allowed"
            )));
        }
        self.rate = Some(rate);
        self.resampler = self.wanted.filter(|&wanted| wanted != rate).map(|wanted| Resampler::whole(rate, wanted));
        if let Some(stated) = self.stated {
            if stated.seconds > self.limits.duration.as_secs_f64() {
                return Err(self.too_long());
            }
            // No more than a minute on the word of a file.
            let given = self.wanted.unwrap_or(rate);
            self.samples.reserve((stated.seconds.min(60.0) * f64::from(given)) as usize + 1);
        }
        Ok(())
    }

    fn too_long(&self) -> DecodeError {
        DecodeError::TooLong { limit: self.limits.duration }
    }

    /// The sound, if it is one.
    pub fn finish(mut self) -> Result<Sound, DecodeError> {
        if self.bad > self.good {
            return Err(DecodeError::Damaged(self.complaint.to_owned()));
        }
        let Some(rate) = self.rate else {
            return match self.stated {
                Some(stated) => Err(DecodeError::Truncated { found: 0.0, stated: stated.seconds }),
                None => Err(DecodeError::Empty),
            };
        };
        let found = self.heard as f64 / f64::from(rate);
        if let Some(Stated { seconds, exact }) = self.stated {
            // A packet or two, of at most 2048 samples as a rule, or of Opus, whose length includes what is left out in front.
            let slack = if exact { 0.5 / f64::from(rate) } else { 0.1 + 4096.0 / f64::from(rate) };
            if found + self.left_out as f64 / f64::from(rate) + slack < seconds {
                return Err(DecodeError::Truncated { found, stated: seconds });
            }
        }
        if self.heard == 0 {
            return Err(DecodeError::Empty);
        }
        if self.loudest < SILENCE {
            return Err(DecodeError::Silent);
        }
        if let Some(mut resampler) = self.resampler {
            resampler.finish_into(&mut self.samples);
        }
        Ok(Sound { samples: self.samples, rate: self.wanted.unwrap_or(rate) })
    }
}
