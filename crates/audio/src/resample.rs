//! From one rate to another.
//!
//! By Fourier transforms of blocks (`rubato`): the spectrum is cut or lengthened, and multiplied with the one of a windowed sinc,
//! which keeps what is above the lower rate's half out. Longer blocks cut more sharply and come later.

use rubato::{Fft, FixedSync, Resampler as _, audioadapter_buffers::direct::InterleavedSlice};

use crate::Sound;

/// Frames of the lower rate in a block, when nobody waits for it.
const WHOLE: usize = 2048;

/// The same of a stream: 32 ms of 16 kHz, half of which is the delay.
const STREAM: usize = 512;

/// A whole sound at another rate. It begins where it began, and has a sample for each that begun: ⌈samples · `rate` ∕ its rate⌉.
///
/// # Panics
/// If one of the rates is 0.
#[must_use]
pub fn resample(sound: Sound, rate: u32) -> Sound {
    if sound.rate == rate {
        return sound;
    }
    let mut resampler = Resampler::whole(sound.rate, rate);
    let mut samples = Vec::with_capacity(resampler.due(sound.samples.len()) + resampler.block_out);
    resampler.push_into(&sound.samples, &mut samples);
    drop(sound);
    resampler.finish_into(&mut samples);
    Sound { samples, rate }
}

/// Resamples a stream: what is pushed comes out, at another rate and up to a block later.
///
/// A block is 512 samples of the lower rate or a little more, 20 to 60 ms between the usual ones. Rates without a large common
/// divisor need longer ones: 1 ∕ gcd seconds.
pub struct Resampler {
    from: u32,
    to: u32,
    /// None if there is nothing to do.
    fft: Option<Fft<f32>>,
    block_in: usize,
    block_out: usize,
    /// Less than a block.
    pending: Vec<f32>,
    /// The filter's delay: samples of the output still to be left out.
    early: usize,
    taken: usize,
    given: usize,
}

impl Resampler {
    /// From one rate to another, in samples a second.
    ///
    /// # Panics
    /// If one of them is 0.
    #[must_use]
    pub fn new(from: u32, to: u32) -> Self {
        Self::by_blocks_of(from, to, STREAM)
    }

    /// The same in longer blocks, for when nobody waits for it.
    pub(crate) fn whole(from: u32, to: u32) -> Self {
        Self::by_blocks_of(from, to, WHOLE)
    }

    fn by_blocks_of(from: u32, to: u32, frames: usize) -> Self {
        assert!(from > 0 && to > 0, "a rate of 0");
        let divisor = gcd(from, to);
        let unit = (from / divisor) as usize;
        let least = from.min(to) / divisor;
        // An even number of units has its middle on a sample.
        let units = frames.div_ceil(least as usize).next_multiple_of(2);
        let fft = (from != to).then(|| {
            Fft::new(from as usize, to as usize, units * unit, 1, FixedSync::Both).expect("rates and block aren't 0")
        });
        let (block_in, block_out, early) = match &fft {
            Some(fft) => (fft.input_frames_next(), fft.output_frames_next(), fft.output_delay()),
            None => (0, 0, 0),
        };
        Self { from, to, fft, block_in, block_out, pending: Vec::new(), early, taken: 0, given: 0 }
    }

    /// Takes samples, and gives those that are ready.
    pub fn push(&mut self, samples: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        self.push_into(samples, &mut out);
        out
    }

    /// The rest, as if silence followed. All that was given is now ⌈what was taken · to ∕ from⌉ samples.
    #[must_use]
    pub fn finish(mut self) -> Vec<f32> {
        let mut out = Vec::new();
        self.finish_into(&mut out);
        out
    }

    pub(crate) fn push_into(&mut self, mut samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len();
        if self.fft.is_none() {
            self.given += samples.len();
            out.extend_from_slice(samples);
            return;
        }
        if !self.pending.is_empty() {
            let missing = (self.block_in - self.pending.len()).min(samples.len());
            let (head, tail) = samples.split_at(missing);
            self.pending.extend_from_slice(head);
            samples = tail;
            if self.pending.len() < self.block_in {
                return;
            }
            let block = std::mem::take(&mut self.pending);
            self.block(&block, out);
        }
        let blocks = samples.chunks_exact(self.block_in);
        self.pending.extend_from_slice(blocks.remainder());
        for block in blocks {
            self.block(block, out);
        }
    }

    pub(crate) fn finish_into(&mut self, out: &mut Vec<f32>) {
        let due = self.due(self.taken);
        while self.given < due {
            let mut block = std::mem::take(&mut self.pending);
            block.resize(self.block_in, 0.0);
            self.block(&block, out);
        }
        out.truncate(out.len() - (self.given - due));
    }

    /// Samples that so many become.
    fn due(&self, taken: usize) -> usize {
        (taken as u128 * u128::from(self.to)).div_ceil(u128::from(self.from)) as usize
    }

    fn block(&mut self, block: &[f32], out: &mut Vec<f32>) {
        let fft = self.fft.as_mut().expect("equal rates make no blocks");
        let begin = out.len();
        out.resize(begin + self.block_out, 0.0);
        let input = InterleavedSlice::new(block, 1, self.block_in).expect("a block is whole");
        let mut output =
            InterleavedSlice::new_mut(&mut out[begin..], 1, self.block_out).expect("so is what it becomes");
        fft.process_into_buffer(&input, &mut output, None).expect("blocks have the lengths that were asked for");
        let early = self.early.min(self.block_out);
        out.drain(begin..begin + early);
        self.early -= early;
        self.given += self.block_out - early;
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
