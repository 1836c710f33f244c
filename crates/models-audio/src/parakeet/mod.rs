//! Parakeet-TDT: a Conformer over the sound, and a small network that goes along what it gives, says a token and how far to go on.
//!
//! Sources: FastConformer (Rekesh et al., arXiv:2305.05084); the token-and-duration transducer (Xu et al., arXiv:2304.06795). Names and
//! `config.json` as mlx-community has them, which are NeMo's.

mod attention;
mod config;
mod conformer;
mod predictor;

use std::time::Duration;

use vllm_platform::{HeardToken, MelSettings};
use vllm_platform_mlx::{
    LoadContext, Result, Tensor, inventory,
    speech::{SpeechFamily, TransducerModel},
};

use self::{config::Config, conformer::Conformer, predictor::Predictor};

inventory::submit! { SpeechFamily::transducer("EncDecRNNTBPEModel", |ctx| Ok(Box::new(Parakeet::load(ctx)?))) }
inventory::submit! { SpeechFamily::transducer("EncDecHybridRNNTCTCBPEModel", |ctx| Ok(Box::new(Parakeet::load(ctx)?))) }

struct Parakeet {
    config: Config,
    encoder: Conformer,
    predictor: Predictor,
}

impl Parakeet {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config = Config::load(ctx)?;
        // A hybrid's second head, which reads the same encoder without the transducer.
        ctx.ignore(|name| name.starts_with("ctc_decoder."));
        Ok(Self {
            encoder: Conformer::load(&ctx.at("encoder"), &config.encoder)?,
            predictor: Predictor::load(ctx, &config)?,
            config,
        })
    }

    /// Seconds of so many places of the encoder's.
    fn time(&self, places: usize) -> Duration {
        let place = self.config.encoder.subsampling_factor as f64 * f64::from(self.config.preprocessor.window_stride);
        Duration::from_secs_f64(places as f64 * place)
    }
}

impl TransducerModel for Parakeet {
    fn mel(&self) -> MelSettings {
        self.config.preprocessor.mel()
    }

    fn pieces(&self) -> &[String] {
        &self.config.joint.vocabulary
    }

    fn transcribe(&self, mel: &Tensor, pause: &mut dyn FnMut()) -> Result<Vec<HeardToken>> {
        let encoded = self.encoder.forward(mel, pause)?;
        let places = self.predictor.project(&encoded)?;
        let count = usize::try_from(places.dim(0)).unwrap_or(0);
        let most = self.config.decoding.max_symbols();
        let mut state = self.predictor.begin()?;
        let (mut tokens, mut place, mut here) = (Vec::new(), 0, 0);
        while place < count {
            let said = self.predictor.say(&places, place, &state)?;
            let steps = self.config.decoding.durations[said.duration];
            if let Some(token) = said.token {
                state = self.predictor.go_on(token, &state)?;
                if !is_special(&self.config.joint.vocabulary[token as usize]) {
                    let (start, duration) = (self.time(place), self.time(steps));
                    tokens.push(HeardToken { token, start, duration, probability: said.probability });
                }
            }
            place += steps;
            here = if steps == 0 { here + 1 } else { 0 };
            if most.is_some_and(|most| here >= most) {
                (place, here) = (place + 1, 0);
            }
            pause();
        }
        Ok(tokens)
    }
}

/// Whether a piece is no text but a sign between the model and its makers.
fn is_special(piece: &str) -> bool {
    matches!(piece, "<unk>" | "<pad>") || piece.starts_with("<|") && piece.ends_with("|>")
}
