//! What models that make sound are made of: `cargo bench -p vllm-kernels-cpu --bench convolve`.
//!
//! Kokoro's shapes, for a second of sound: its generator's convolutions with all that stands around them, in each kind of
//! activations; its norms, oscillators, and an LSTM over a sentence.

mod support;

use std::hint::black_box;

use support::{Suite, Work, numbers};
use vllm_kernels_cpu::{
    Activations, Conv1d, DenseMatrix, Inlet, LstmDirection, Nonlinearity, Outlet, Pool, Taps, TransposedTaps,
    WeightArena, convolve, convolve_transposed, instance_affine, lstm, sin,
};

const KINDS: [Activations; 3] = [Activations::Int16, Activations::Int8, Activations::F32];

fn convolutions(suite: &mut Suite) {
    // (frames, outputs, kernel, inputs, dilation)
    let shapes = [
        (800, 256, 3, 256, 1),
        (800, 256, 11, 256, 5),
        (4800, 128, 3, 128, 1),
        (4800, 128, 11, 128, 5),
        (40, 1024, 3, 1090, 1),
    ];
    for kind in KINDS {
        let pool = Pool::new(suite.pool.threads()).with_activations(kind);
        for (frames, outputs, kernel, inputs, dilation) in shapes {
            let conv = Conv1d { padding: kernel / 2 * dilation, dilation, ..Conv1d::default() };
            let (x, weights) = (numbers(frames * inputs), numbers(outputs * kernel * inputs));
            let taps = Taps::new(&pool, &WeightArena::new(), &weights, [outputs, kernel, inputs], conv, None);
            let (mut y, residual) = (vec![0.0; frames * outputs], numbers(frames * outputs));
            let (scale, shift, alpha) = (vec![1.1; inputs], vec![0.1; inputs], vec![0.9; inputs]);
            let inlet = Inlet { affine: Some([&scale, &shift]), function: Nonlinearity::Snake(&alpha) };
            let outlet = Outlet { residual: Some(&residual), factor: 1.0 };
            let operations = 2 * frames * outputs * kernel * inputs;
            let bytes = 4 * frames * (inputs + 2 * outputs) + taps.nbytes();
            let work = if kind == Activations::F32 { Work::f32 } else { Work::int8 }(operations, bytes);
            let name = format!("{frames}x{outputs}x{kernel}x{inputs} dilation {dilation}");
            suite.bench(&format!("convolve {kind}"), &name, work, |_, _| {
                convolve(&pool, black_box(&x), [1, frames], &taps, &inlet, &outlet, &mut y);
            });
        }
        let weights = numbers(512 * 20 * 256);
        let taps = TransposedTaps::new(&pool, &WeightArena::new(), &weights, [512, 20, 256], 10, None);
        let (x, mut y) = (numbers(80 * 512), vec![0.0; 800 * 256]);
        let work = Work::int8(2 * 80 * 512 * 20 * 256, 4 * (x.len() + y.len()));
        suite.bench(&format!("transposed {kind}"), "80x512x20x256 by 10", work, |_, _| {
            convolve_transposed(&pool, black_box(&x), &taps, [5, 0], &Inlet::default(), &mut y);
        });
    }
}

fn others(suite: &mut Suite) {
    let (frames, channels) = (4800, 128);
    let (x, ones) = (numbers(frames * channels), vec![1.0; channels]);
    let (mut scale, mut shift) = (vec![0.0; channels], vec![0.0; channels]);
    suite.bench("instance_affine", "4800x128", Work::memory(4 * x.len()), |pool, _| {
        instance_affine(pool, black_box(&x), &ones, &ones, 1e-5, &mut scale, &mut shift);
    });
    let (x, mut y) = (numbers(24_000 * 9), vec![0.0; 24_000 * 9]);
    suite.bench("sin", "24000x9", Work::memory(8 * x.len()), |pool, _| sin(pool, black_box(&x), &mut y));
    let (frames, inputs, hidden) = (100, 640, 256);
    let (x, input, state) = (numbers(frames * inputs), numbers(4 * hidden * inputs), numbers(4 * hidden * hidden));
    let bias = numbers(4 * hidden);
    let way = LstmDirection {
        input: DenseMatrix::new(&*input, [4 * hidden, inputs]).expect("as long as its shape"),
        hidden: DenseMatrix::new(&*state, [4 * hidden, hidden]).expect("as long as its shape"),
        bias: &bias,
    };
    let mut y = vec![0.0; frames * 2 * hidden];
    let operations = 2 * 2 * frames * 4 * hidden * (inputs + hidden);
    suite.bench("lstm", "100x640x256 both ways", Work::f32(operations, 8 * (input.len() + state.len())), |pool, _| {
        lstm(pool, black_box(&x), &[way, way], &mut y);
    });
}

fn main() {
    let mut suite = Suite::new("convolve");
    convolutions(&mut suite);
    others(&mut suite);
    suite.finish();
}
