//! [`Listener`] over MLX: windows of sound in, logits of texts out.

mod alignment;
mod heard;
mod hearing;
mod listening;

use std::{cell::RefCell, collections::BTreeMap, path::Path, rc::Rc, sync::Arc};

use mlx_rs::{Dtype, with_stream};
use vllm_checkpoint::Checkpoint;
use vllm_kernels_cpu::KvKind;
use vllm_platform::{
    Listener, ListenerInfo, LoadProgress, Mel, MelSettings, MemoryInfo, TextId, TextRow, TokenId, TranscriberInfo,
    WindowId,
};

use self::{
    heard::{HeardWindow, Kept},
    hearing::{ArrayText, ArrayWindow, Place},
    listening::{Encoding, encode_arrays},
};
use super::{LoadSpeech, Machine, speech_family_of};
use crate::{
    Batch, Error, Layout, Result, Tensor,
    batch::dim,
    device,
    layout::TextTokens,
    load::{LoadContext, View},
    model::LayerSpec,
    platform::activation_dtype,
    replay::Replay,
};

pub(crate) use heard::HeardText;
pub use hearing::Hearing;
pub use listening::Listening;

/// A model that writes down what it hears. Written once for all devices, like a [`CausalLm`](crate::model::CausalLm).
pub trait ListenerModel {
    /// What it listens to.
    fn mel(&self) -> MelSettings;

    /// Its decoder in numbers.
    fn listener_info(&self) -> ListenerInfo;

    /// Tokens known.
    fn vocab_size(&self) -> usize;

    /// The encoder's attention layers, first to last.
    fn encoder_layers(&self) -> Vec<LayerSpec>;

    /// The decoder's, of which each attends to the text and to the sound.
    fn decoder_layers(&self) -> Vec<LayerSpec>;

    /// One window: log-mel [frames, bands] → [places, hidden]. All of it, as of what is heard, is made of [`Ops`](crate::Ops).
    ///
    /// # Errors
    /// MLX's own.
    fn encode(&self, mel: &Tensor, listening: &mut Listening<'_>) -> Result<Tensor>;

    /// Keys and values of what a decoder's layer hears: [places, hidden] → [places, heads, head_dim] each.
    ///
    /// # Errors
    /// MLX's own.
    fn heard(&self, layer: usize, encoded: &Tensor) -> Result<[Tensor; 2]>;

    /// The hidden states after the last layer, [tokens, hidden].
    ///
    /// # Errors
    /// MLX's own.
    fn decode(&self, batch: &Batch, hearing: &mut Hearing) -> Result<Tensor>;

    /// What comes after them, row by row: [rows, hidden] → [rows, vocab].
    ///
    /// # Errors
    /// MLX's own.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;
}

/// How a family's models are loaded: what a name in a checkpoint is called in the model, and what makes the model.
#[derive(Clone, Copy)]
pub(crate) struct LoadListener {
    pub names: fn(&str) -> String,
    pub load: fn(&LoadContext<'_>) -> Result<Box<dyn ListenerModel>>,
}

/// A loaded model that writes down what it hears. Belongs to the thread that loaded it.
pub struct MlxListener {
    model: Box<dyn ListenerModel>,
    machine: Machine,
    info: TranscriberInfo,
    listener: ListenerInfo,
    layers: Vec<LayerSpec>,
    /// On the CPU, once it has been noted.
    encoding: Option<Encoding>,
    /// What windows are kept in: 16 bits if weights are.
    kind: KvKind,
    replay: Replay,
    dtype: Dtype,
    in_place_bytes: u64,
    /// The next id.
    next: u64,
    windows: BTreeMap<WindowId, Window>,
    texts: BTreeMap<TextId, Text>,
}

#[derive(Clone)]
enum Window {
    Pools(Arc<HeardWindow>),
    Arrays(Rc<ArrayWindow>),
}

struct Text {
    about: WindowId,
    /// Tokens so far.
    len: usize,
    /// Whether a step failed in which it was.
    broken: bool,
    kept: KeptText,
}

#[derive(Clone)]
enum KeptText {
    Pools(Arc<HeardText>),
    Arrays(Rc<RefCell<ArrayText>>),
}

/// Loads the model of a checkpoint.
pub(super) fn load(
    checkpoint: &Checkpoint,
    machine: Machine,
    load: LoadListener,
    progress: LoadProgress<'_>,
) -> Result<MlxListener> {
    let mut config = checkpoint.config().clone();
    // The heads that follow the words are named beside the weights' configuration in Hugging Face's layout.
    let heads = checkpoint.generation_config().map(|generation| generation["alignment_heads"].clone());
    if let (Some(heads), Some(config)) = (heads.filter(|heads| !heads.is_null()), config.as_object_mut()) {
        config.entry("alignment_heads").or_insert(heads);
    }
    let architecture = checkpoint.architecture()?.into();
    let view = View::part(checkpoint, config, architecture, |name| Some((load.names)(name)))?;
    let (model, weights) =
        machine.load_view(&view, activation_dtype(&view.config, machine.device), progress, load.load)?;
    let listener = model.listener_info();
    let info = TranscriberInfo {
        architecture: weights.architecture,
        device: machine.device,
        parameters: weights.parameters,
        weight_bytes: weights.bytes,
        quantization: weights.quantization,
        mel: model.mel(),
        vocab_size: model.vocab_size(),
    };
    if listener.encoded_frames < listener.max_text_len {
        let ListenerInfo { encoded_frames, max_text_len, .. } = listener;
        return Err(Error::Config(format!("texts of {max_text_len} tokens about windows of {encoded_frames} places")));
    }
    let kind = if ["f16", "bf16"].contains(&&*info.quantization) { KvKind::F16 } else { KvKind::F32 };
    Ok(MlxListener {
        layers: model.decoder_layers(),
        encoding: None,
        kind,
        replay: Replay::new(&machine.ops),
        model,
        machine,
        info,
        listener,
        dtype: weights.dtype,
        in_place_bytes: weights.in_place_bytes,
        next: 0,
        windows: BTreeMap::new(),
        texts: BTreeMap::new(),
    })
}

impl MlxListener {
    /// Loads the checkpoint at `path` to run on the CPU over MLX's own operations, which are those of the other devices: slow,
    /// and what tests compare ours with.
    ///
    /// # Errors
    /// If it is of no family that listens, or a tensor missing, surplus or mis-shaped.
    pub fn load_over_mlx(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        match speech_family_of(&checkpoint)?.map(|family| family.load) {
            Some(LoadSpeech::Listener(family)) => load(&checkpoint, Machine::mlx()?, family, &mut |_, _| {}),
            _ => Err(Error::Config("a model that does not listen".into())),
        }
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn window(&self, id: WindowId) -> Result<&Window> {
        self.windows.get(&id).ok_or_else(|| Error::Plan(format!("there is no window {}", id.0)))
    }

    fn encode_one(&mut self, mel: &Mel, pause: &mut dyn FnMut()) -> Result<Window> {
        let (frames, bands) = (self.listener.window_frames, self.info.mel.bands);
        if mel.frames != frames || mel.numbers.len() != frames * bands {
            let (found, numbers) = (mel.frames, mel.numbers.len());
            return Err(Error::Plan(format!(
                "a window of {found} frames, {numbers} numbers; the model takes {frames} frames of {bands} bands"
            )));
        }
        if self.machine.ops.threads().is_none() {
            let mel = Tensor::from_slice(&mel.numbers, &[dim(frames), dim(bands)]).as_dtype(self.dtype)?;
            return Ok(Window::Arrays(Rc::new(encode_arrays(&*self.model, &mel, pause)?)));
        }
        let encoding = match &mut self.encoding {
            Some(encoding) => encoding,
            none => none.insert(Encoding::new(&*self.model, &self.machine.ops, self.kind)?),
        };
        Ok(Window::Pools(encoding.run(mel, pause)?))
    }

    /// A text of no tokens yet.
    fn text(&self, about: WindowId) -> Result<Text> {
        let kept = match self.window(about)? {
            Window::Pools(window) => {
                let kept = Kept::new(&self.layers, self.listener.max_text_len, KvKind::F32)?;
                KeptText::Pools(Arc::new(HeardText { kept, window: Arc::clone(window) }))
            }
            Window::Arrays(window) => {
                let own = self.layers.iter().map(|_| None).collect();
                KeptText::Arrays(Rc::new(RefCell::new(ArrayText { own, window: Rc::clone(window) })))
            }
        };
        Ok(Text { about, len: 0, broken: false, kept })
    }

    /// What the rows' texts keep, and where.
    fn place<'a>(&self, texts: impl Iterator<Item = &'a KeptText>) -> (Place, Vec<Arc<HeardText>>) {
        let (mut pools, mut arrays) = (Vec::new(), Vec::new());
        for text in texts {
            match text {
                KeptText::Pools(text) => pools.push(Arc::clone(text)),
                KeptText::Arrays(text) => arrays.push(Rc::clone(text)),
            }
        }
        let place = match self.machine.ops.threads() {
            Some((threads, stream)) => Place::Cpu { threads: Arc::clone(threads), stream: stream.clone() },
            None => Place::Arrays(arrays),
        };
        (place, pools)
    }

    fn check(&self, rows: &[TextRow<'_>]) -> Result<()> {
        for (i, row) in rows.iter().enumerate() {
            let wrong = |problem: String| Err(Error::Plan(format!("text {}: {problem}", row.text.0)));
            let Some(text) = self.texts.get(&row.text) else { return wrong("there is none of that number".into()) };
            let (tokens, most) = (row.tokens.len(), self.listener.max_text_len);
            if text.broken {
                return wrong("a step failed in which it was".into());
            }
            if rows[..i].iter().any(|other| other.text == row.text) {
                return wrong("stands in two rows".into());
            }
            if tokens == 0 || row.logits == 0 || row.logits > tokens {
                return wrong(format!("{tokens} tokens, and the logits of {} of them", row.logits));
            }
            if text.len + tokens > most {
                return wrong(format!("{} tokens and {tokens} more, of at most {most}", text.len));
            }
        }
        Ok(())
    }

    fn run(&mut self, rows: &[TextRow<'_>]) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<&Text> = rows.iter().map(|row| &self.texts[&row.text]).collect();
        let (place, pools) = self.place(texts.iter().map(|text| &text.kept));
        let tokens: Vec<_> = rows
            .iter()
            .zip(&texts)
            .map(|(row, text)| TextTokens { start: text.len, tokens: row.tokens, wanted: row.logits })
            .collect();
        let layout = Layout::of_texts(&tokens, pools)?;
        let mut hearing = Hearing { place, asked: None };
        let (model, ops, vocab) = (&self.model, &self.machine.ops, self.info.vocab_size);
        let build = |batch: &Batch| model.logits(&ops.wanted_rows(model.decode(batch, &mut hearing)?, batch)?);
        let split = |logits: &[f32]| {
            let mut rest = logits;
            let part = |row: &TextRow<'_>| {
                let (part, after) = rest.split_at(row.logits * vocab);
                rest = after;
                part.to_vec()
            };
            Ok(rows.iter().map(part).collect())
        };
        self.replay.compute(ops, layout, build, split)
    }
}

/// An evaluated array's numbers.
fn numbers(x: &Tensor) -> Result<&[f32]> {
    x.try_as_slice::<f32>().map_err(|e| Error::Plan(format!("a listener's result: {e}")))
}

impl Listener for MlxListener {
    fn info(&self) -> &TranscriberInfo {
        &self.info
    }

    fn listener_info(&self) -> &ListenerInfo {
        &self.listener
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        let windows = self.windows.values().map(|window| match window {
            Window::Pools(window) => window.kept.bytes(),
            Window::Arrays(_) => 0,
        });
        let texts = self.texts.values().map(|text| match &text.kept {
            KeptText::Pools(kept) => kept.kept.bytes() * text.len as u64 / self.listener.max_text_len as u64,
            KeptText::Arrays(_) => 0,
        });
        let kept: u64 = windows.chain(texts).sum();
        device::memory(self.info.device, self.in_place_bytes + kept).map_err(Error::into_step_error)
    }

    fn encode(&mut self, windows: &[&Mel], pause: &mut dyn FnMut()) -> vllm_platform::Result<Vec<WindowId>> {
        let stream = self.machine.stream.clone();
        let all = |mel: &&Mel| self.encode_one(mel, pause);
        let encoded: Result<Vec<_>> = with_stream(&stream, || windows.iter().map(all).collect());
        let mut ids = Vec::with_capacity(windows.len());
        for window in encoded.map_err(Error::into_step_error)? {
            let id = WindowId(self.id());
            self.windows.insert(id, window);
            ids.push(id);
        }
        Ok(ids)
    }

    fn begin(&mut self, window: WindowId) -> vllm_platform::Result<TextId> {
        let text = self.text(window).map_err(Error::into_step_error)?;
        let id = TextId(self.id());
        self.texts.insert(id, text);
        Ok(id)
    }

    fn step(&mut self, rows: &[TextRow<'_>]) -> vllm_platform::Result<Vec<Vec<f32>>> {
        self.check(rows).map_err(Error::into_step_error)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let stream = self.machine.stream.clone();
        let result = with_stream(&stream, || self.run(rows));
        for row in rows {
            if let Some(text) = self.texts.get_mut(&row.text) {
                text.len += row.tokens.len();
                text.broken |= result.is_err();
            }
        }
        result.map_err(Error::into_step_error)
    }

    fn alignment(&mut self, window: WindowId, tokens: &[TokenId]) -> vllm_platform::Result<Vec<f32>> {
        let stream = self.machine.stream.clone();
        with_stream(&stream, || self.align(window, tokens)).map_err(Error::into_step_error)
    }

    fn end(&mut self, text: TextId) {
        self.texts.remove(&text);
    }

    fn forget(&mut self, window: WindowId) {
        self.windows.remove(&window);
        self.texts.retain(|_, text| text.about != window);
    }
}
