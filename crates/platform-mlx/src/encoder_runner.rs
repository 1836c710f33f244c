//! [`EncoderRunner`] over MLX: texts in, one graph a layer, a vector or a score for each text out.

use mlx_rs::{
    Dtype, Stream,
    ops::{indexing::take_axis, sigmoid},
    with_stream,
};
use vllm_checkpoint::{Pooling, SentenceModel};
use vllm_platform::{
    EncoderInfo, EncoderInput, EncoderOutput, EncoderRunner, MemoryInfo, Row, SeqId, StepPlan, TokenId,
};

use crate::{
    Batch, Error, Layout, Result, Span, Tensor,
    batch::dim,
    device,
    encoder::{CrossEncoder, EncoderBatch, TextEncoder},
    kv::TransientKv,
    model::{CausalLm, LayerSpec},
};

/// A network, and what is made of its hidden states.
pub(crate) enum Network {
    /// An encoder's, pooled.
    Embedding(Box<dyn TextEncoder>, SentenceModel),
    /// A decoder's, pooled.
    DecoderEmbedding { model: Box<dyn CausalLm>, how: SentenceModel, hidden: usize },
    /// A score by its own head.
    Scores(Box<dyn CrossEncoder>),
    /// The probability of `yes` where only `yes` and `no` could follow.
    Judge { model: Box<dyn CausalLm>, yes: TokenId, no: TokenId },
}

impl Network {
    pub fn layers(&self) -> Vec<LayerSpec> {
        match self {
            Self::Embedding(model, _) => model.layers(),
            Self::Scores(model) => model.network().layers(),
            Self::DecoderEmbedding { model, .. } | Self::Judge { model, .. } => model.layers(),
        }
    }

    /// Whether tokens see only what is before them.
    pub fn is_causal(&self) -> bool {
        matches!(self, Self::DecoderEmbedding { .. } | Self::Judge { .. })
    }

    /// Longest text the model was made for, in tokens.
    pub fn max_input_len(&self) -> usize {
        match self {
            Self::Embedding(model, _) => model.max_input_len(),
            Self::Scores(model) => model.network().max_input_len(),
            Self::DecoderEmbedding { model, .. } | Self::Judge { model, .. } => model.context_length(),
        }
    }

    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Embedding(model, _) => model.vocab_size(),
            Self::Scores(model) => model.network().vocab_size(),
            Self::DecoderEmbedding { model, .. } | Self::Judge { model, .. } => model.vocab_size(),
        }
    }

    pub fn output(&self) -> EncoderOutput {
        let embedding =
            |dimensions, how: &SentenceModel| EncoderOutput::Embedding { dimensions, normalized: how.normalize };
        match self {
            Self::Embedding(model, how) => embedding(model.hidden_size(), how),
            Self::DecoderEmbedding { how, hidden, .. } => embedding(*hidden, how),
            Self::Scores(_) | Self::Judge { .. } => EncoderOutput::Score,
        }
    }
}

/// A loaded encoder. Belongs to the thread that loaded it.
pub struct MlxEncoder {
    network: Network,
    kv: TransientKv,
    info: EncoderInfo,
    stream: Stream,
    /// Weights in memory that isn't MLX's.
    in_place_bytes: u64,
}

impl MlxEncoder {
    pub(crate) fn new(
        network: Network,
        kv: TransientKv,
        info: EncoderInfo,
        stream: Stream,
        in_place_bytes: u64,
    ) -> Self {
        Self { network, kv, info, stream, in_place_bytes }
    }

    fn batch(&self, inputs: &[EncoderInput<'_>]) -> Result<EncoderBatch> {
        let tables = self.kv.tables(inputs.iter().map(|input| input.tokens.len()));
        let mut types = Vec::new();
        let mut rows = Vec::with_capacity(inputs.len());
        for ((input, tables), seq) in inputs.iter().zip(&tables).zip(0..) {
            let EncoderInput { tokens, types: of_tokens } = *input;
            let wrong = |problem: String| Error::Plan(format!("input {seq}: {problem}"));
            if tokens.len() > self.info.max_input_len {
                let (found, most) = (tokens.len(), self.info.max_input_len);
                return Err(wrong(format!("{found} tokens, the model takes {most}")));
            }
            if !of_tokens.is_empty() && of_tokens.len() != tokens.len() {
                return Err(wrong(format!("{} types for {} tokens", of_tokens.len(), tokens.len())));
            }
            types.extend_from_slice(of_tokens);
            types.resize(types.len() + tokens.len() - of_tokens.len(), 0);
            rows.push(Row { seq: SeqId(seq), tokens, start: 0, tables, media: &[], sample: None });
        }
        let batch = Batch::new(Layout::new(&StepPlan { rows, ..StepPlan::default() }, self.kv.spec())?.into());
        Ok(EncoderBatch { types: Tensor::from_slice(&types, &[dim(types.len())]), batch })
    }

    fn run(&mut self, inputs: &[EncoderInput<'_>], pause: &mut dyn FnMut()) -> Result<Vec<Vec<f32>>> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.batch(inputs)?;
        let mut kv = self.kv.attending(pause);
        let spans: Vec<Span> = batch.batch.layout().spans().collect();
        match &self.network {
            Network::Embedding(model, how) => pooled(&model.forward(&batch, &mut kv)?, &spans, *how),
            Network::DecoderEmbedding { model, how, .. } => {
                pooled(&model.forward(&batch.batch, &mut kv)?, &spans, *how)
            }
            Network::Scores(model) => {
                let first = pick(&model.network().forward(&batch, &mut kv)?, spans.iter().map(|span| span.first))?;
                rows(&sigmoid(model.logits(&first)?.as_dtype(Dtype::Float32)?)?)
            }
            Network::Judge { model, yes, no } => {
                let last = spans.iter().map(|span| span.first + span.len - 1);
                let logits = model.logits(&pick(&model.forward(&batch.batch, &mut kv)?, last)?)?;
                let of = |token: TokenId| -> Result<Tensor> {
                    let column = Tensor::from_slice(&[token], &[1]);
                    Ok(take_axis(&logits, column, 1)?.as_dtype(Dtype::Float32)?)
                };
                // The softmax of two.
                rows(&sigmoid(of(*yes)?.subtract(of(*no)?)?)?)
            }
        }
    }
}

impl EncoderRunner for MlxEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        device::memory(self.info.device, self.in_place_bytes).map_err(Error::into_step_error)
    }

    fn encode(&mut self, batch: &[EncoderInput<'_>], pause: &mut dyn FnMut()) -> vllm_platform::Result<Vec<Vec<f32>>> {
        let stream = self.stream.clone();
        with_stream(&stream, || self.run(batch, pause)).map_err(Error::into_step_error)
    }
}

/// Some rows of a matrix.
fn pick(x: &Tensor, which: impl Iterator<Item = usize>) -> Result<Tensor> {
    let which: Vec<i32> = which.map(dim).collect();
    Ok(take_axis(x, Tensor::from_slice(&which, &[dim(which.len())]), 0)?)
}

/// A matrix's rows on the host, in f32.
fn rows(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    let x = x.as_dtype(Dtype::Float32)?.contiguous()?;
    x.eval()?;
    let width = usize::try_from(x.dim(-1)).unwrap_or(0).max(1);
    let numbers = x.try_as_slice::<f32>().map_err(|e| Error::Plan(format!("an encoder's result: {e}")))?;
    Ok(numbers.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

/// One vector for each span of the hidden states [tokens, hidden].
fn pooled(hidden: &Tensor, spans: &[Span], how: SentenceModel) -> Result<Vec<Vec<f32>>> {
    let mut vectors = match how.pooling {
        Pooling::Cls => rows(&pick(hidden, spans.iter().map(|span| span.first))?)?,
        Pooling::LastToken => rows(&pick(hidden, spans.iter().map(|span| span.first + span.len - 1))?)?,
        Pooling::Mean => {
            let tokens = rows(hidden)?;
            spans.iter().map(|span| mean(&tokens[span.first..span.first + span.len])).collect()
        }
    };
    if how.normalize {
        vectors.iter_mut().for_each(|vector| normalize(vector));
    }
    Ok(vectors)
}

fn mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let scale = 1.0 / rows.len().max(1) as f32;
    sum.iter_mut().for_each(|sum| *sum *= scale);
    sum
}

/// To length 1; the zero vector stays as it is.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
