//! A model that writes down what it hears, without a model.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    bursts::{bursts, word},
    mix,
    whisper_tokens::{EOT, LANGUAGES, NO_SPEECH, NO_TIMESTAMPS, SOT, TIMESTAMP_BEGIN, VOCAB_SIZE, WORDS},
};
use crate::{
    DeviceKind, Error, Listener, ListenerInfo, Mel, MelScale, MelSettings, MemoryInfo, Result, TextId, TextRow,
    TokenId, TranscriberInfo, WindowId,
};

/// What the fake is like.
#[derive(Debug, Clone)]
pub struct FakeListenerConfig {
    /// What it listens to.
    pub mel: MelSettings,
    /// As [`ListenerInfo::window_frames`].
    pub window_frames: usize,
    /// As [`ListenerInfo::encoded_frames`]: as many as times from a window's beginning to its end.
    pub encoded_frames: usize,
    /// As [`ListenerInfo::max_text_len`].
    pub max_text_len: usize,
    /// The language that it hears, as its place among [`whisper_tokenizer`](super::whisper_tokenizer)'s.
    pub language: usize,
    /// Frames by which words differ.
    pub word_frames: usize,
    /// Above this a frame is loud.
    pub loud: f32,
    /// Texts, counted from 0 in the order they are begun, that say the same word until there is no more room.
    pub mumble_at: HashSet<u64>,
    /// Time that encoding each window takes; it pauses after each.
    pub encode_delay: Duration,
    /// Time that each step takes.
    pub step_delay: Duration,
    /// Calls of `encode` (counted from 0) that fail with [`Error::Step`].
    pub fail_encode_at: HashSet<u64>,
    /// Calls of `encode` that panic.
    pub panic_encode_at: HashSet<u64>,
    /// Calls of `step` (counted from 0) that fail with [`Error::Step`].
    pub fail_step_at: HashSet<u64>,
    /// Calls of `step` that fail with [`Error::OutOfMemory`].
    pub out_of_memory_at: HashSet<u64>,
    /// Calls of `step` that panic.
    pub panic_step_at: HashSet<u64>,
    /// Calls of `alignment` (counted from 0) that fail with [`Error::Step`].
    pub fail_alignment_at: HashSet<u64>,
}

impl Default for FakeListenerConfig {
    /// Listens to what Whisper does, and has the tokens of [`whisper_tokenizer`](super::whisper_tokenizer).
    fn default() -> Self {
        Self {
            mel: MelSettings {
                sample_rate: 16_000,
                fft: 400,
                window: 400,
                hop: 160,
                bands: 80,
                scale: MelScale::Whisper,
            },
            window_frames: 3000,
            encoded_frames: 1500,
            max_text_len: 448,
            language: 0,
            word_frames: 10,
            loud: 0.0,
            mumble_at: HashSet::new(),
            encode_delay: Duration::ZERO,
            step_delay: Duration::ZERO,
            fail_encode_at: HashSet::new(),
            panic_encode_at: HashSet::new(),
            fail_step_at: HashSet::new(),
            out_of_memory_at: HashSet::new(),
            panic_step_at: HashSet::new(),
            fail_alignment_at: HashSet::new(),
        }
    }
}

/// What a test may read of a model that lives on another thread.
#[derive(Debug, Default)]
pub struct FakeListenerProbe {
    /// Calls of `encode`, failed ones too.
    pub encodes: AtomicU64,
    /// Windows encoded.
    pub encoded: AtomicU64,
    /// Most windows in one call.
    pub most_encoded: AtomicU64,
    /// Calls of `step`, failed ones too.
    pub steps: AtomicU64,
    /// Tokens fed.
    pub tokens: AtomicU64,
    /// Most rows in one step.
    pub most_rows: AtomicU64,
    /// Windows whose texts met in one step, most of them.
    pub most_windows: AtomicU64,
    /// Calls of `alignment`, failed ones too.
    pub alignments: AtomicU64,
    /// Windows that are kept now.
    pub windows: AtomicU64,
    /// Texts that are kept now.
    pub texts: AtomicU64,
}

/// The model: it hears a word wherever the sound is loud for a while, and writes it between two times.
///
/// A word that goes on beyond the window's end has no end, so that the next window begins with it again. Where nothing is loud
/// it says that nobody speaks. The longer a burst by [`FakeListenerConfig::word_frames`], the later among ten words it is.
///
/// ```
/// use vllm_platform::{Listener, Mel, TextRow, testing::FakeListener};
///
/// let mut model = FakeListener::new(Default::default());
/// let mut window = Mel { numbers: vec![-1.0; 3000 * 80], frames: 3000 };
/// window.numbers[30 * 80..50 * 80].fill(1.0);
/// let window = model.encode(&[&window], &mut || ()).unwrap()[0];
/// let text = model.begin(window).unwrap();
/// // Start of a transcript, English, transcribe.
/// let logits = &model.step(&[TextRow { text, tokens: &[267, 268, 272], logits: 1 }]).unwrap()[0];
/// let greatest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
/// assert_eq!(greatest, Some(277 + 15), "0.3 s");
/// ```
#[derive(Debug)]
pub struct FakeListener {
    config: FakeListenerConfig,
    info: TranscriberInfo,
    listener_info: ListenerInfo,
    probe: Arc<FakeListenerProbe>,
    windows: BTreeMap<WindowId, Vec<Range<usize>>>,
    texts: BTreeMap<TextId, Text>,
    next_window: u64,
    next_text: u64,
}

#[derive(Debug)]
struct Text {
    window: WindowId,
    tokens: Vec<TokenId>,
    /// Of those fed at first, up to the last mark.
    prompt: usize,
    mumbles: bool,
    /// It was in a step that failed.
    lost: bool,
}

impl FakeListener {
    /// A model.
    #[must_use]
    pub fn new(config: FakeListenerConfig) -> Self {
        let info = TranscriberInfo {
            architecture: "FakeListener".into(),
            device: DeviceKind::Cpu,
            parameters: 0,
            weight_bytes: 0,
            quantization: "none".into(),
            mel: config.mel.clone(),
            vocab_size: VOCAB_SIZE,
        };
        let listener_info = ListenerInfo {
            window_frames: config.window_frames,
            encoded_frames: config.encoded_frames,
            max_text_len: config.max_text_len,
            alignment_heads: vec![(0, 0), (1, 1)],
        };
        Self {
            config,
            info,
            listener_info,
            probe: Arc::default(),
            windows: BTreeMap::new(),
            texts: BTreeMap::new(),
            next_window: 0,
            next_text: 0,
        }
    }

    /// Figures to watch from another thread.
    #[must_use]
    pub fn probe(&self) -> Arc<FakeListenerProbe> {
        Arc::clone(&self.probe)
    }

    /// What is written about a window after the prompt, without times or with them.
    fn script(&self, bursts: &[Range<usize>], times: bool) -> Vec<TokenId> {
        let stride = self.config.window_frames / self.config.encoded_frames;
        let time = |frame: usize| TIMESTAMP_BEGIN + ((frame + stride / 2) / stride) as TokenId;
        let mut script = Vec::new();
        for burst in bursts {
            let word = word(burst, self.config.word_frames, &WORDS);
            // As Whisper, it never writes that a window's first words come later than its first second.
            let start = if script.is_empty() { burst.start.min(50 * stride) } else { burst.start };
            let tokens = [time(start), word, time(burst.end)];
            let ends = burst.end < self.config.window_frames;
            match times {
                true => script.extend(&tokens[..if ends { 3 } else { 2 }]),
                false => script.push(word),
            }
        }
        script
    }

    /// Logits after the first `len` of a text's tokens.
    fn logits(&self, text: &Text, len: usize) -> Vec<f32> {
        let bursts = &self.windows[&text.window];
        let tokens = &text.tokens[..len];
        let digest = tokens.iter().fold(bursts.len() as u64, |digest, &token| mix(digest, token.into()));
        let noise = |token: u64| (mix(digest, token) >> 40) as f32 / (1 << 24) as f32;
        let mut logits: Vec<f32> = (0..VOCAB_SIZE as u64).map(noise).collect();
        if len >= text.prompt {
            let script = self.script(bursts, text.tokens[text.prompt - 1] != NO_TIMESTAMPS);
            let next = if text.mumbles { Some(&WORDS.start) } else { script.get(len - text.prompt) };
            logits[*next.unwrap_or(&EOT) as usize] = 20.0;
        }
        if tokens.last() == Some(&SOT) {
            logits[LANGUAGES.start as usize + self.config.language] = 15.0;
            logits[NO_SPEECH as usize] = if bursts.is_empty() { 25.0 } else { 0.0 };
        }
        logits
    }

    fn check(&self, rows: &[TextRow<'_>]) -> Result<(), String> {
        let mut seen = HashSet::new();
        for row in rows {
            let TextId(id) = row.text;
            let text = self.texts.get(&row.text).ok_or(format!("there is no text {id}"))?;
            if !seen.insert(id) {
                return Err(format!("text {id} is there twice"));
            }
            if text.lost {
                return Err(format!("text {id} was in a step that failed"));
            }
            if row.tokens.is_empty() || row.logits == 0 || row.logits > row.tokens.len() {
                return Err(format!("text {id}: {} logits of {} tokens", row.logits, row.tokens.len()));
            }
            let len = text.tokens.len() + row.tokens.len();
            if len > self.config.max_text_len {
                return Err(format!("text {id} has {len} tokens, and there is room for {}", self.config.max_text_len));
            }
            if let Some(token) = row.tokens.iter().find(|&&token| token as usize >= VOCAB_SIZE) {
                return Err(format!("token {token} is beyond the vocabulary"));
            }
        }
        Ok(())
    }

    fn run(&mut self, step: u64, rows: &[TextRow<'_>]) -> Result<Vec<Vec<f32>>> {
        if self.config.fail_step_at.contains(&step) {
            return Err(Error::Step(format!("the fake was told to fail at step {step}")));
        }
        if self.config.out_of_memory_at.contains(&step) {
            return Err(Error::OutOfMemory(format!("the fake was told to run out at step {step}")));
        }
        self.check(rows).map_err(Error::Step)?;
        let mut answers = Vec::new();
        for row in rows {
            let Some(text) = self.texts.get_mut(&row.text) else { continue };
            text.tokens.extend(row.tokens);
            if text.prompt == 0 {
                // A text may be fed whole, for what the model thinks of it.
                let mark = |token: &TokenId| (EOT..TIMESTAMP_BEGIN).contains(token);
                text.prompt = row.tokens.iter().rposition(mark).map_or(row.tokens.len(), |last| last + 1);
            }
            let text = &self.texts[&row.text];
            let len = text.tokens.len();
            answers.push((len - row.logits + 1..=len).flat_map(|len| self.logits(text, len)).collect());
        }
        Ok(answers)
    }

    fn show(&self) {
        self.probe.windows.store(self.windows.len() as u64, Relaxed);
        self.probe.texts.store(self.texts.len() as u64, Relaxed);
    }
}

impl Listener for FakeListener {
    fn info(&self) -> &TranscriberInfo {
        &self.info
    }

    fn listener_info(&self) -> &ListenerInfo {
        &self.listener_info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo { total: 1 << 30, limit: 1 << 30, active: 0, cached: 0, peak: 0 })
    }

    fn encode(&mut self, windows: &[&Mel], pause: &mut dyn FnMut()) -> Result<Vec<WindowId>> {
        let call = self.probe.encodes.fetch_add(1, Relaxed);
        self.probe.most_encoded.fetch_max(windows.len() as u64, Relaxed);
        for _ in windows {
            std::thread::sleep(self.config.encode_delay);
            pause();
        }
        assert!(!self.config.panic_encode_at.contains(&call), "the fake was told to panic at call {call}");
        if self.config.fail_encode_at.contains(&call) {
            return Err(Error::Step(format!("the fake was told to fail at call {call}")));
        }
        let (frames, bands) = (self.config.window_frames, self.config.mel.bands);
        if let Some(mel) = windows.iter().find(|mel| mel.frames != frames || mel.numbers.len() != frames * bands) {
            return Err(Error::Step(format!("a window of {} frames, {} numbers", mel.frames, mel.numbers.len())));
        }
        self.probe.encoded.fetch_add(windows.len() as u64, Relaxed);
        let mut ids = Vec::new();
        for mel in windows {
            let id = WindowId(self.next_window);
            self.next_window += 1;
            self.windows.insert(id, bursts(mel, self.config.loud));
            ids.push(id);
        }
        self.show();
        Ok(ids)
    }

    fn begin(&mut self, window: WindowId) -> Result<TextId> {
        if !self.windows.contains_key(&window) {
            return Err(Error::Step(format!("there is no window {}", window.0)));
        }
        let id = TextId(self.next_text);
        let mumbles = self.config.mumble_at.contains(&self.next_text);
        self.next_text += 1;
        self.texts.insert(id, Text { window, tokens: Vec::new(), prompt: 0, mumbles, lost: false });
        self.show();
        Ok(id)
    }

    fn step(&mut self, rows: &[TextRow<'_>]) -> Result<Vec<Vec<f32>>> {
        let step = self.probe.steps.fetch_add(1, Relaxed);
        self.probe.tokens.fetch_add(rows.iter().map(|row| row.tokens.len() as u64).sum(), Relaxed);
        self.probe.most_rows.fetch_max(rows.len() as u64, Relaxed);
        let windows: HashSet<_> = rows.iter().filter_map(|row| Some(self.texts.get(&row.text)?.window)).collect();
        self.probe.most_windows.fetch_max(windows.len() as u64, Relaxed);
        std::thread::sleep(self.config.step_delay);
        assert!(!self.config.panic_step_at.contains(&step), "the fake was told to panic at step {step}");
        let result = self.run(step, rows);
        if result.is_err() {
            let lost = |row: &TextRow<'_>| self.texts.get_mut(&row.text).into_iter().for_each(|text| text.lost = true);
            rows.iter().for_each(lost);
        }
        result
    }

    fn alignment(&mut self, window: WindowId, tokens: &[TokenId]) -> Result<Vec<f32>> {
        let call = self.probe.alignments.fetch_add(1, Relaxed);
        if self.config.fail_alignment_at.contains(&call) {
            return Err(Error::Step(format!("the fake was told to fail at call {call}")));
        }
        let bursts =
            self.windows.get(&window).ok_or_else(|| Error::Step(format!("there is no window {}", window.0)))?;
        let (frames, places) = (self.config.window_frames, self.config.encoded_frames);
        // A token attends to what comes next: to a word's burst, and less to the silence after it; before the first word to the
        // beginning, after the last to the end.
        let place = |frame: usize| frame * places / frames;
        let mut words = 0;
        let mut scores = vec![0.0; tokens.len() * places];
        for (next, scores) in tokens.iter().skip(1).chain([&EOT]).zip(scores.chunks_exact_mut(places)) {
            words += usize::from(WORDS.contains(next));
            let burst = match words {
                0 => 0..1,
                _ if WORDS.contains(next) => bursts.get(words - 1).cloned().unwrap_or(frames - 1..frames),
                _ => bursts.last().map_or(frames - 1, |last| last.end)..frames,
            };
            let after = bursts.iter().map(|burst| burst.start).find(|&start| start >= burst.end).unwrap_or(burst.end);
            scores[place(burst.end)..place(after)].fill(5.0);
            scores[place(burst.start)..place(burst.end).max(place(burst.start) + 1)].fill(10.0);
        }
        Ok(scores.repeat(self.listener_info.alignment_heads.len()))
    }

    fn end(&mut self, text: TextId) {
        self.texts.remove(&text);
        self.show();
    }

    fn forget(&mut self, window: WindowId) {
        self.windows.remove(&window);
        self.texts.retain(|_, text| text.window != window);
        self.show();
    }
}
