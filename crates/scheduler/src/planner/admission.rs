//! Who is let in, in whose place, and with what of its prompt computed already.

use std::collections::HashSet;

use vllm_cache::{Adopted, Hit};
use vllm_platform::SeqId;

use super::{Admitted, Planner, Scheduled, rank};
use crate::sequence::{Sequence, Stage};

/// Why a sequence is not admitted.
enum Refused {
    /// There are too few blocks, or no place.
    NoRoom(Box<Sequence>),
    /// Its prefix is not in the cache any more, as far as was thought, and it needs features.
    NoFeatures(Box<Sequence>),
}

/// Tokens that are worth waiting for.
const MIN_SHARED: usize = 4;

impl Planner {
    /// Admits sequences that wait, in their order, until places or blocks run out. Only those are passed over that are
    /// being read from the SSD, whose features are not there yet, or whose prompt another one is computing just now.
    pub(super) fn admit(&mut self, scheduled: &mut Scheduled) {
        let mut passed_over: HashSet<SeqId> = HashSet::new();
        loop {
            // Who has just given way does not come back in the same step.
            let sent_back = |s: &Sequence| scheduled.preempted.contains(&s.id);
            let there = |s: &Sequence| s.loading.is_empty() && s.media.stage() == Stage::Ready;
            let ready = |s: &Sequence| there(s) && !passed_over.contains(&s.id) && !sent_back(s);
            let Some(seq) = self.waiting.next(&self.clients, ready) else { return };
            let Some(sequence) = self.waiting.remove(seq) else { return };
            if self.follows_another(&sequence) {
                passed_over.insert(seq);
                self.waiting.push(sequence);
                continue;
            }
            match self.make_way(sequence, scheduled) {
                Ok(admitted) => scheduled.admitted.push(admitted),
                Err(Refused::NoRoom(sequence)) => return self.waiting.push(*sequence),
                Err(Refused::NoFeatures(sequence)) => self.waiting.push(*sequence),
            }
        }
    }

    /// Whether it pays to wait until a running sequence has computed what both begin with.
    fn follows_another(&self, sequence: &Sequence) -> bool {
        let (size, tokens) = (self.cache.block_size(), sequence.tokens());
        let prompts = self.running.iter().filter(|s| s.pending_prompt() > 0 && s.prefix.same_salt(&sequence.prefix));
        let mut found = None;
        prompts.filter(|_| self.cache.is_enabled()).any(|leader| {
            let limit = tokens.len() - 1;
            let common = sequence.prefix.common(&tokens[..limit], &leader.prefix, leader.tokens());
            let found = *found.get_or_insert_with(|| self.cache.find(&sequence.prefix, tokens, true).tokens);
            let whole = common / size * size;
            // A block can be shared once it is full, the last one once the prompt is done.
            let (until, shared) = if whole > found { (whole, whole) } else { (leader.prompt_len(), common) };
            let (saved, wait) = (shared.saturating_sub(found), until.saturating_sub(leader.computed()));
            wait > 0 && saved >= MIN_SHARED && 2 * saved >= wait
        })
    }

    /// Starts a sequence, if need be in the place of running ones that have less of a claim.
    fn make_way(&mut self, mut sequence: Sequence, scheduled: &mut Scheduled) -> Result<Admitted, Refused> {
        if !self.has_features(&mut sequence) {
            return Err(Refused::NoFeatures(Box::new(sequence)));
        }
        while self.running.len() >= self.limits.max_num_seqs {
            let places = self.limits.max_num_seqs;
            let yields = |s: &Sequence| {
                let unfair = self.clients.is_unfair(&s.client, &sequence.client, places);
                s.priority > sequence.priority || (s.priority == sequence.priority && unfair)
            };
            let victims = self.running.iter().enumerate().filter(|(_, s)| yields(s));
            let Some((victim, _)) = victims.max_by_key(|(_, s)| rank(s)) else {
                return Err(Refused::NoRoom(Box::new(sequence)));
            };
            self.preempt(victim, scheduled);
        }
        loop {
            let placed = self.place(&mut sequence);
            if sequence.media.stage() != Stage::Ready {
                return Err(Refused::NoFeatures(Box::new(sequence)));
            }
            if let Some(cached) = placed {
                let admitted = Admitted { seq: sequence.id, cached };
                self.clients.start(&sequence.client);
                self.running.push(sequence);
                return Ok(admitted);
            }
            let worse = self.running.iter().enumerate().filter(|(_, s)| s.priority > sequence.priority);
            let Some((victim, _)) = worse.max_by_key(|(_, s)| rank(s)) else {
                return Err(Refused::NoRoom(Box::new(sequence)));
            };
            self.preempt(victim, scheduled);
        }
    }

    /// Whether a sequence has all features that it needs beside what is cached of it; if not, it will be asked for them.
    fn has_features(&self, sequence: &mut Sequence) -> bool {
        sequence.media.is_empty() || {
            let hit = self.cache.find(&sequence.prefix, sequence.tokens(), true);
            self.has_features_beside(sequence, &hit)
        }
    }

    fn has_features_beside(&self, sequence: &mut Sequence, hit: &Hit) -> bool {
        let lacking = sequence.media.lacking(hit.tokens) > 0;
        if lacking {
            sequence.media.look_again(hit.tokens);
        }
        !lacking
    }

    /// Gives a sequence its cached blocks and new ones for the rest of what is known; `None`, and nothing changes, if
    /// there are too few, or it needs features that are not there: then it is at another [`Stage`].
    fn place(&mut self, sequence: &mut Sequence) -> Option<usize> {
        // Each running sequence may soon need one more block: without these somebody would be preempted at once.
        let headroom = self.running.len();
        let mut hit = self.cache.find(&sequence.prefix, sequence.tokens(), true);
        let mut adopted = self.cache.adopt(&hit);
        if headroom == 0 && !adopted.as_ref().is_some_and(|adopted| self.has_room(sequence, adopted, 0)) {
            // Alone it fits, but perhaps not beside a block that it would copy from.
            self.give_back(adopted.take());
            hit = self.cache.find(&sequence.prefix, sequence.tokens(), false);
            adopted = self.cache.adopt(&hit);
        }
        let mut adopted = adopted?;
        if !self.has_room(sequence, &adopted, headroom) {
            self.give_back(Some(adopted));
            return None;
        }
        if !self.has_features_beside(sequence, &hit) {
            self.give_back(Some(adopted));
            return None;
        }
        for (group, table) in adopted.tables.iter_mut().enumerate() {
            if self.cache.groups()[group].window.is_none() {
                let wanted = sequence.pending().div_ceil(self.cache.block_size());
                let more = wanted.saturating_sub(table.len());
                table.extend((0..more).map_while(|_| self.cache.allocate(group)));
            }
        }
        self.touched.extend(self.cache.on_ssd_of(&hit));
        self.count(sequence, &hit);
        self.stats.copies += adopted.copies.len() as u64;
        sequence.tables = adopted.tables;
        sequence.floor = adopted.floor;
        sequence.mark_computed(hit.tokens);
        self.copies.append(&mut adopted.copies);
        Some(hit.tokens)
    }

    fn has_room(&self, sequence: &Sequence, adopted: &Adopted, headroom: usize) -> bool {
        let wanted = sequence.pending().div_ceil(self.cache.block_size());
        let groups = self.cache.groups().iter().zip(self.cache.pools()).zip(&adopted.tables);
        groups
            .filter(|((group, _), _)| group.window.is_none())
            .all(|((_, pool), table)| pool.available() >= wanted.saturating_sub(table.len()) + headroom)
    }

    fn give_back(&mut self, adopted: Option<Adopted>) {
        if let Some(Adopted { tables, copies, .. }) = adopted {
            copies.iter().for_each(|copy| self.cache.release(copy.group, copy.from));
            self.cache.release_tables(&tables);
        }
    }

    /// Books what a sequence found when it is admitted for the first time.
    fn count(&mut self, sequence: &mut Sequence, hit: &Hit) {
        if sequence.cached.is_some() {
            return;
        }
        sequence.cached = Some(hit.tokens);
        sequence.reused_media = sequence.media.reused_tokens(hit.tokens);
        if self.stats.enabled {
            self.stats.queries += sequence.prompt_len() as u64;
            self.stats.hits += hit.tokens as u64;
            self.stats.ssd_hits += hit.ssd_tokens as u64;
            self.stats.media_queries += sequence.media.tokens(sequence.prompt_len()) as u64;
            self.stats.media_hits += sequence.media.tokens(hit.tokens) as u64;
            *(if hit.tokens > 0 { &mut self.stats.hit_requests } else { &mut self.stats.missed_requests }) += 1;
        }
    }
}
