//! What goes along the places: a memory of the tokens so far, and the joint network that says the next, or to go on.

use vllm_platform_mlx::{
    Activation, Bias, Dtype, Error, LoadContext, Ops, Result, Tensor,
    mlx_rs::ops::{indexing::take_axis, sigmoid, tanh, zeros},
    nn::{Embedding, Linear},
};

use super::{config::Config, conformer::dim};

/// One layer of long short-term memory, a token at a time.
struct Cell {
    /// Of the input and of the hidden state, [4 · hidden, hidden] each: input gate, forget gate, cell, output gate.
    input: Linear,
    hidden: Linear,
}

/// Hidden state and cell of each layer, [1, hidden], and what the joint network is told of the last.
pub(super) struct State {
    layers: Vec<(Tensor, Tensor)>,
    /// [1, joint].
    told: Tensor,
}

/// What is said at a place.
pub(super) struct Said {
    /// None: nothing.
    pub token: Option<u32>,
    /// How probable that was, among all tokens and nothing.
    pub probability: f32,
    /// Which of the durations.
    pub duration: usize,
}

/// See the [module](self).
pub(super) struct Predictor {
    ops: Ops,
    embedding: Embedding,
    cells: Vec<Cell>,
    hidden: usize,
    /// Into the joint network: of the places, and of the memory.
    of_places: Linear,
    of_memory: Linear,
    output: Linear,
    tokens: usize,
    durations: usize,
}

impl Predictor {
    pub fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let (decoder, joint) = (ctx.at("decoder.prediction"), ctx.at("joint"));
        let (hidden, inner, tokens) =
            (config.decoder.prednet.pred_hidden, config.joint.jointnet.joint_hidden, config.decoder.vocab_size);
        let durations = config.decoding.durations.len();
        let rows = tokens + usize::from(config.decoder.blank_as_pad);
        let cell = |layer: usize| {
            let scope = decoder.at(&format!("dec_rnn.lstm.{layer}"));
            let bias = scope.tensor("bias", &[4 * hidden])?;
            let input = scope.matrix("Wx", 4 * hidden, hidden)?;
            let recurrent = scope.matrix("Wh", 4 * hidden, hidden)?;
            Ok(Cell {
                input: Linear::new(ctx.ops(), input, Some(bias)),
                hidden: Linear::new(ctx.ops(), recurrent, None),
            })
        };
        Ok(Self {
            ops: ctx.ops(),
            embedding: decoder.embedding("embed", rows, hidden)?,
            cells: (0..config.decoder.prednet.pred_rnn_layers).map(cell).collect::<Result<_>>()?,
            hidden,
            of_places: joint.linear("enc", config.encoder.d_model, inner, Bias::Added)?,
            of_memory: joint.linear("pred", hidden, inner, Bias::Added)?,
            output: joint.linear("joint_net.2", inner, tokens + 1 + durations, Bias::Added)?,
            tokens,
            durations,
        })
    }

    /// What the joint network is told of places [places, model]: [places, joint].
    pub fn project(&self, places: &Tensor) -> Result<Tensor> {
        let projected = self.of_places.forward(places)?;
        projected.eval()?;
        Ok(projected)
    }

    /// Before the first token: nothing was said, which is a vector of zeros, not a token.
    pub fn begin(&self) -> Result<State> {
        let zero = || zeros::<f32>(&[1, dim(self.hidden)]);
        let layers = self.cells.iter().map(|_| Ok((zero()?, zero()?))).collect::<Result<Vec<_>>>()?;
        self.remember(&zero()?, &layers)
    }

    /// After another token.
    pub fn go_on(&self, token: u32, state: &State) -> Result<State> {
        let token = Tensor::from_slice(&[token], &[1]);
        self.remember(&self.embedding.forward(&token)?, &state.layers)
    }

    fn remember(&self, x: &Tensor, before: &[(Tensor, Tensor)]) -> Result<State> {
        let (mut x, mut layers) = (x.clone(), Vec::with_capacity(before.len()));
        for (cell, (hidden, memory)) in self.cells.iter().zip(before) {
            let gates = self.ops.add(&cell.input.forward(&x)?, &cell.hidden.forward(hidden)?)?.split_equal(4, 1)?;
            let kept = sigmoid(&gates[1])?.multiply(memory)?;
            let memory = kept.add(sigmoid(&gates[0])?.multiply(tanh(&gates[2])?)?)?;
            let hidden = sigmoid(&gates[3])?.multiply(tanh(&memory)?)?;
            x = hidden.clone();
            layers.push((hidden, memory));
        }
        let told = self.of_memory.forward(&x)?;
        told.eval()?;
        Ok(State { layers, told })
    }

    /// What is most probable at a place of the [projected](Self::project) ones.
    pub fn say(&self, places: &Tensor, place: usize, state: &State) -> Result<Said> {
        let here = take_axis(places, Tensor::from_slice(&[dim(place)], &[1]), 0)?;
        let x = self.ops.activate(&self.ops.add(&here, &state.told)?, Activation::Relu)?;
        let logits = self.output.forward(&x)?.as_dtype(Dtype::Float32)?.contiguous()?;
        logits.eval()?;
        let logits = logits.try_as_slice::<f32>().map_err(|e| Error::Plan(format!("what is said: {e}")))?;
        let (tokens, durations) = logits.split_at(self.tokens + 1);
        debug_assert_eq!(durations.len(), self.durations);
        let token = greatest(tokens);
        let sum: f32 = tokens.iter().map(|logit| (logit - tokens[token]).exp()).sum();
        // The last one is nothing.
        let said = (token < self.tokens).then(|| u32::try_from(token).unwrap_or(u32::MAX));
        Ok(Said { token: said, probability: 1.0 / sum, duration: greatest(durations) })
    }
}

/// The first of the greatest.
fn greatest(numbers: &[f32]) -> usize {
    numbers.iter().enumerate().fold(0, |best, (i, &number)| if number > numbers[best] { i } else { best })
}
