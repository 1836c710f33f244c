//! RoBERTa and XLM-RoBERTa: BERT's network, trained otherwise. Positions count from after the padding token's id.
//!
//! Sources: Liu et al., arXiv:1907.11692 (RoBERTa); Conneau et al., arXiv:1911.02116 (XLM-RoBERTa, the same network with
//! another vocabulary). Layer names as in the Hugging Face checkpoints.

use vllm_platform_mlx::{
    Bias, Error, LoadContext, Result, Tensor,
    encoder::{CrossEncoder, EncoderFamily, TextEncoder},
    inventory,
    mlx_rs::ops::tanh,
    nn::Linear,
};

use crate::{bert::Bert, config::Config};

inventory::submit! { EncoderFamily::embedding("RobertaModel", |ctx| Ok(Box::new(load(ctx)?))) }
inventory::submit! { EncoderFamily::embedding("RobertaForMaskedLM", |ctx| Ok(Box::new(load(ctx)?))) }
inventory::submit! { EncoderFamily::embedding("XLMRobertaModel", |ctx| Ok(Box::new(load(ctx)?))) }
inventory::submit! { EncoderFamily::embedding("XLMRobertaForMaskedLM", |ctx| Ok(Box::new(load(ctx)?))) }
inventory::submit! {
    EncoderFamily::cross_encoder("RobertaForSequenceClassification", |ctx| Ok(Box::new(RobertaScores::load(ctx)?)))
}
inventory::submit! {
    EncoderFamily::cross_encoder("XLMRobertaForSequenceClassification", |ctx| Ok(Box::new(RobertaScores::load(ctx)?)))
}

fn load(ctx: &LoadContext<'_>) -> Result<Bert> {
    // What predicts masked words has no part in embeddings, nor has the pooler, which RoBERTa was trained without.
    ctx.ignore(|name| name.starts_with("lm_head."));
    let scope = Bert::scope(ctx, "roberta");
    scope.ignore(|name| name.starts_with("pooler."));
    let config = Config::load(ctx)?;
    Bert::load(&scope, &config, first_position(&config)?)
}

fn first_position(config: &Config) -> Result<usize> {
    let pad = config.pad_token_id.filter(|&pad| pad < config.max_position_embeddings);
    pad.map(|pad| pad + 1).ok_or_else(|| {
        let found = config.pad_token_id.map_or("missing".into(), |pad| pad.to_string());
        Error::Config(format!("pad_token_id is {found}: positions count from it, below max_position_embeddings"))
    })
}

/// RoBERTa with a head of two layers on the first token: one output on tanh(W·h + b).
struct RobertaScores {
    network: Bert,
    dense: Linear,
    output: Linear,
}

impl RobertaScores {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config = Config::load(ctx)?;
        config.check_one_label()?;
        let (head, hidden) = (ctx.at("classifier"), config.hidden_size);
        Ok(Self {
            network: Bert::load(&ctx.at("roberta"), &config, first_position(&config)?)?,
            dense: head.linear("dense", hidden, hidden, Bias::Added)?,
            output: head.linear("out_proj", hidden, 1, Bias::Added)?,
        })
    }
}

impl CrossEncoder for RobertaScores {
    fn network(&self) -> &dyn TextEncoder {
        &self.network
    }

    fn logits(&self, first: &Tensor) -> Result<Tensor> {
        self.output.forward(&tanh(self.dense.forward(first)?)?)
    }
}
