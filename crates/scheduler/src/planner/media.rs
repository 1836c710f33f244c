//! Features of pictures: asked for ahead of prefill.

use vllm_platform::SeqId;

use super::Planner;
use crate::{
    Wake,
    sequence::{Sequence, Stage},
};

/// Sequences that wait whose features are asked for or held at once: more would only fill memory.
const SEQUENCES: usize = 4;

/// What became of those who wait for features.
#[derive(Debug, Default)]
pub(crate) struct MediaNews {
    /// Who waits from now on, and for how many spans.
    pub asked: Vec<(SeqId, usize)>,
    /// Who waits no longer.
    pub ready: Vec<SeqId>,
    /// Who will never get theirs, and why.
    pub failed: Vec<(SeqId, String)>,
}

impl Planner {
    /// Looks what features those who wait need beside their prefixes in the KV cache, and asks for those of the first few
    /// of them; `wake` is called when it is time to ask again. With a `tier` below memory a sequence's prefix is looked up
    /// there before.
    pub fn ask_for_media(&mut self, wake: &Wake, tier: bool) -> MediaNews {
        let mut news = MediaNews::default();
        if self.searching {
            return news;
        }
        let looked_up = |s: &Sequence| s.loading.is_empty() && (s.looked_on_ssd || !tier);
        let with_media = self.waiting.iter_mut().filter(|s| !s.media.is_empty() && looked_up(s));
        let mut sequences: Vec<&mut Sequence> = with_media.collect();
        sequences.sort_by_cached_key(|s| (s.priority, self.clients.served(&s.client), s.id));
        let mut ahead = 0;
        for sequence in sequences {
            let (stage, has_place) = (sequence.media.stage(), ahead < SEQUENCES);
            if !has_place && sequence.media.holds_any() {
                sequence.media.let_go();
                sequence.media.set_stage(Stage::Wanting);
            }
            if stage == Stage::Ready || (stage != Stage::New && !has_place) {
                ahead += usize::from(sequence.media.holds_any());
                continue;
            }
            let hit = self.cache.find(&sequence.prefix, sequence.tokens(), true);
            let covered = hit.tokens.min(sequence.media.limit());
            if sequence.media.lacking(covered) > 0 && has_place {
                ahead += 1;
                if let Err(why) = sequence.media.ask(covered, wake) {
                    news.failed.push((sequence.id, why));
                    continue;
                }
            }
            match (sequence.media.lacking(covered), stage) {
                (0, _) => {
                    sequence.media.set_stage(Stage::Ready);
                    news.ready.push(sequence.id);
                }
                (_, Stage::Asking) => {}
                (_, _) if !has_place => sequence.media.set_stage(Stage::Wanting),
                (lacking, _) => {
                    sequence.media.set_stage(Stage::Asking);
                    news.asked.push((sequence.id, lacking));
                }
            }
        }
        news
    }

    /// Whether nothing can be computed before others, the SSD or an encoder, have done their part.
    pub fn waits_for_others(&self) -> bool {
        let ready = |s: &Sequence| s.loading.is_empty() && s.media.stage() == Stage::Ready;
        self.running.is_empty() && !self.searching && !self.waiting.iter().any(ready)
    }
}
