//! Silero's voice activity detector, version 5 and 6, for 16 kHz.
//!
//! A chunk of 512 samples, with the 64 before it, is transformed at four places; four convolutions make one vector of the magnitudes,
//! an LSTM cell remembers what it heard, and one neuron says how probable it is that somebody speaks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};
use safetensors::{Dtype, SafeTensors};

use super::layers::Layer;

/// Samples of a chunk: 32 ms.
pub const CHUNK: usize = 512;
/// Samples a second of what it listens to.
pub const SAMPLE_RATE: u32 = 16_000;
/// Samples before a chunk that are heard with it; as many are mirrored at its end.
const CONTEXT: usize = 64;
const FFT: usize = 256;
const HOP: usize = 128;
/// Magnitudes of a transform.
const BINS: usize = FFT / 2 + 1;
/// Transforms of a chunk.
const FRAMES: usize = (CONTEXT + CHUNK + CONTEXT - FFT) / HOP + 1;
/// What the LSTM remembers.
const HIDDEN: usize = 128;

/// Why the detector's weights cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor is not as it should be.
    #[error("tensor {name}: {fault}; wanted is silero_vad_16k.safetensors as Silero publishes it")]
    Tensor {
        /// Which.
        name: &'static str,
        /// What is wrong.
        fault: String,
    },
}

/// The detector's weights. Share them behind an [`Arc`].
#[derive(Clone)]
pub struct Silero {
    transform: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    convolutions: [Layer; 4],
    /// From what is heard and what is remembered to the four gates.
    cell: Layer,
    last: Vec<f32>,
    last_bias: f32,
}

impl std::fmt::Debug for Silero {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Silero").finish_non_exhaustive()
    }
}

/// What the detector remembers of a sound, and room to compute in.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The end of the chunk before.
    context: [f32; CONTEXT],
    /// What the LSTM hears, and behind it what it remembers.
    heard_and_hidden: [f32; 2 * HIDDEN],
    memory: [f32; HIDDEN],
    transformed: Vec<f32>,
    spectrum: Vec<Complex32>,
    scratch: Vec<Complex32>,
    /// Magnitudes, with a frame of zeros before and after.
    magnitudes: [f32; (FRAMES + 2) * BINS],
    /// What the first convolution gives, with a frame of zeros before and after.
    first: [f32; (FRAMES + 2) * 128],
    second: [f32; 2 * 64],
    third: [f32; 64],
    gates: [f32; 4 * HIDDEN],
}

impl Silero {
    /// Loads the weights from `silero_vad_16k.safetensors`, or from a safetensors file of those in Silero's ONNX files (which, in
    /// version 6.2 of its package, are of a later training).
    ///
    /// # Errors
    /// [`LoadError`] if the file cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Reads the weights of a safetensors file: see [`load`](Self::load).
    ///
    /// # Errors
    /// [`LoadError`] if it is none, or holds something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LoadError> {
        let file = SafeTensors::deserialize(bytes)?;
        let basis = tensor(&file, "stft_conv.weight", &[2 * BINS, 1, FFT])?;
        // The sum of a transform is the window's: its cosine is 1 throughout.
        let window = basis[..FFT].to_vec();
        check_basis(&basis, &window)?;
        let convolution = |weight, bias, outputs: usize, inputs: usize, taps: std::ops::Range<usize>| {
            let weights = tensor(&file, weight, &[outputs, inputs, 3])?;
            let bias = tensor(&file, bias, &[outputs])?;
            // Frames stand one after the other: a tap is as far from the next as a frame has numbers.
            let weight = |row, place| weights[(row * inputs + place % inputs) * 3 + taps.start + place / inputs];
            Ok::<_, LoadError>(Layer::new(inputs * taps.len(), bias, weight))
        };
        let convolutions = [
            convolution("conv1.weight", "conv1.bias", 128, BINS, 0..3)?,
            convolution("conv2.weight", "conv2.bias", 64, 128, 0..3)?,
            // Of two frames, then of one: what the other taps hear is nothing but the zeros around them.
            convolution("conv3.weight", "conv3.bias", 64, 64, 1..3)?,
            convolution("conv4.weight", "conv4.bias", HIDDEN, 64, 1..2)?,
        ];
        let heard = tensor(&file, "lstm_cell.weight_ih", &[4 * HIDDEN, HIDDEN])?;
        let hidden = tensor(&file, "lstm_cell.weight_hh", &[4 * HIDDEN, HIDDEN])?;
        let mut bias = tensor(&file, "lstm_cell.bias_ih", &[4 * HIDDEN])?;
        for (sum, hidden) in bias.iter_mut().zip(tensor(&file, "lstm_cell.bias_hh", &[4 * HIDDEN])?) {
            *sum += hidden;
        }
        let cell = Layer::new(2 * HIDDEN, bias, |row, input| match input.checked_sub(HIDDEN) {
            None => heard[row * HIDDEN + input],
            Some(input) => hidden[row * HIDDEN + input],
        });
        Ok(Self {
            transform: RealFftPlanner::new().plan_fft_forward(FFT),
            window,
            convolutions,
            cell,
            last: tensor(&file, "final_conv.weight", &[1, HIDDEN, 1])?,
            last_bias: tensor(&file, "final_conv.bias", &[1])?[0],
        })
    }

    /// Remembers nothing yet.
    pub(super) fn state(&self) -> State {
        State {
            context: [0.0; CONTEXT],
            heard_and_hidden: [0.0; 2 * HIDDEN],
            memory: [0.0; HIDDEN],
            transformed: self.transform.make_input_vec(),
            spectrum: self.transform.make_output_vec(),
            scratch: self.transform.make_scratch_vec(),
            magnitudes: [0.0; (FRAMES + 2) * BINS],
            first: [0.0; (FRAMES + 2) * 128],
            second: [0.0; 2 * 64],
            third: [0.0; 64],
            gates: [0.0; 4 * HIDDEN],
        }
    }

    /// How probable it is that somebody speaks in a sound's next chunk.
    pub(super) fn push(&self, state: &mut State, chunk: &[f32; CHUNK]) -> f32 {
        self.transform(state, chunk);
        let [first, second, third, fourth] = &self.convolutions;
        for frame in (0..FRAMES).step_by(2) {
            let around = [frame, frame + 1].map(|frame| &state.magnitudes[frame * BINS..(frame + 3) * BINS]);
            first.apply_relu_to_two(around, &mut state.first[(frame + 1) * 128..(frame + 3) * 128]);
        }
        for frame in 0..FRAMES / 2 {
            let heard = &state.first[2 * frame * 128..(2 * frame + 3) * 128];
            second.apply_relu(heard, &mut state.second[frame * 64..(frame + 1) * 64]);
        }
        third.apply_relu(&state.second, &mut state.third);
        fourth.apply_relu(&state.third, &mut state.heard_and_hidden[..HIDDEN]);
        self.cell.apply(&state.heard_and_hidden, &mut state.gates);
        let mut sum = self.last_bias;
        for unit in 0..HIDDEN {
            let gate = |index: usize| state.gates[index * HIDDEN + unit];
            let memory = sigmoid(gate(1)) * state.memory[unit] + sigmoid(gate(0)) * gate(2).tanh();
            let hidden = sigmoid(gate(3)) * memory.tanh();
            state.memory[unit] = memory;
            state.heard_and_hidden[HIDDEN + unit] = hidden;
            sum += self.last[unit] * hidden.max(0.0);
        }
        sigmoid(sum)
    }

    /// The magnitudes of a chunk's four transforms.
    fn transform(&self, state: &mut State, chunk: &[f32; CHUNK]) {
        let mut sound = [0.0; CONTEXT + CHUNK + CONTEXT];
        sound[..CONTEXT].copy_from_slice(&state.context);
        sound[CONTEXT..CONTEXT + CHUNK].copy_from_slice(chunk);
        for (index, mirrored) in sound[CONTEXT + CHUNK..].iter_mut().enumerate() {
            *mirrored = chunk[CHUNK - 2 - index];
        }
        state.context.copy_from_slice(&chunk[CHUNK - CONTEXT..]);
        for frame in 0..FRAMES {
            let sound = &sound[frame * HOP..frame * HOP + FFT];
            for ((number, sample), weight) in state.transformed.iter_mut().zip(sound).zip(&self.window) {
                *number = sample * weight;
            }
            let done =
                self.transform.process_with_scratch(&mut state.transformed, &mut state.spectrum, &mut state.scratch);
            assert!(done.is_ok(), "buffers of a transform have its lengths");
            let magnitudes = &mut state.magnitudes[(frame + 1) * BINS..(frame + 2) * BINS];
            for (magnitude, number) in magnitudes.iter_mut().zip(&state.spectrum) {
                *magnitude = number.norm_sqr().sqrt();
            }
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// What Silero's ONNX files call the layers: weights taken out of those may keep their names.
const ONNX_NAMES: [(&str, &str); 7] = [
    ("stft_conv.weight", "model.stft.forward_basis_buffer"),
    ("conv1.", "model.encoder.0.reparam_conv."),
    ("conv2.", "model.encoder.1.reparam_conv."),
    ("conv3.", "model.encoder.2.reparam_conv."),
    ("conv4.", "model.encoder.3.reparam_conv."),
    ("lstm_cell.", "model.decoder.rnn."),
    ("final_conv.", "model.decoder.decoder.2."),
];

/// A tensor of single precision and this shape.
fn tensor(file: &SafeTensors<'_>, name: &'static str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
    let fault = |fault: String| LoadError::Tensor { name, fault };
    let in_onnx = ONNX_NAMES.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)));
    let tensor = file.tensor(name).or_else(|missing| in_onnx.map_or(Err(missing), |name| file.tensor(&name)));
    let tensor = tensor.map_err(|_| fault("missing".to_owned()))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(fault(format!("{:?} {:?} in the file, F32 {shape:?} wanted", tensor.dtype(), tensor.shape())));
    }
    let numbers: Vec<f32> = tensor
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    if numbers.iter().any(|number| !number.is_finite()) {
        return Err(fault("holds numbers that are not finite".to_owned()));
    }
    Ok(numbers)
}

/// The first layer's weights are a Fourier transform of windowed samples, and are computed as one; if they are not, it would be wrong.
fn check_basis(basis: &[f32], window: &[f32]) -> Result<(), LoadError> {
    for bin in 0..BINS {
        for (sample, &weight) in window.iter().enumerate() {
            let angle = -2.0 * std::f64::consts::PI * ((bin * sample) % FFT) as f64 / FFT as f64;
            let real = f64::from(weight) * angle.cos() - f64::from(basis[bin * FFT + sample]);
            let imaginary = f64::from(weight) * angle.sin() - f64::from(basis[(BINS + bin) * FFT + sample]);
            if real.abs().max(imaginary.abs()) > 1e-4 {
                let fault = format!("no Fourier transform: row {bin}, sample {sample}");
                return Err(LoadError::Tensor { name: "stft_conv.weight", fault });
            }
        }
    }
    Ok(())
}

/// The detector along one sound, chunk by chunk.
#[derive(Debug, Clone)]
pub struct Stream {
    silero: Arc<Silero>,
    state: Box<State>,
}

impl Stream {
    /// At a sound's beginning.
    #[must_use]
    pub fn new(silero: Arc<Silero>) -> Self {
        Self { state: Box::new(silero.state()), silero }
    }

    /// How probable it is that somebody speaks in the next chunk. Allocates nothing.
    pub fn push(&mut self, chunk: &[f32; CHUNK]) -> f32 {
        self.silero.push(&mut self.state, chunk)
    }

    /// Forgets what it heard.
    pub fn reset(&mut self) {
        *self.state = self.silero.state();
    }
}
