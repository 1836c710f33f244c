//! Ranks as threads over loopback, with stages that count: what goes round, what a failure says, and how ranks meet again.

use std::{
    net::{SocketAddr, TcpListener},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use vllm_dist::{
    Follower, OpenLink, Pipeline, PipelineRunner, PipelineStatus, Split, Surroundings, Transport, follow, lead,
};
use vllm_platform::{
    DeviceKind, EncoderOptions, EncoderRunner, Error, HiddenDtype, KvCacheSpec, KvDtype, KvGroup, Link, LoadOptions,
    LoadProgress, MemoryInfo, ModelInfo, ModelOutline, ModelPurpose, ModelRunner, ModelSource, Platform, Result, Row,
    SampleAt, Sampled, SamplingParams, SeqId, SpeechOptions, StageOutput, StageRunner, StepOutput, StepPlan,
    Synthesizer, Transcriber, VisionEncoder, VisionOptions,
};

const LAYERS: usize = 8;
/// A stage fails at this token.
const POISON: u32 = 666;

/// A platform whose stages add the numbers of their layers to each token.
#[derive(Clone)]
struct Counting {
    fingerprint: &'static str,
    blocks: Arc<AtomicU64>,
    /// Loads so far.
    loads: Arc<AtomicU64>,
}

impl Counting {
    fn new(fingerprint: &'static str, blocks: u64) -> Self {
        Self { fingerprint, blocks: Arc::new(blocks.into()), loads: Arc::default() }
    }
}

fn none<T>() -> Result<T> {
    Err(Error::Model("only stages here".into()))
}

impl Platform for Counting {
    fn devices(&self) -> Vec<DeviceKind> {
        vec![DeviceKind::Cpu]
    }

    fn memory(&self, _: DeviceKind) -> Result<MemoryInfo> {
        Ok(MemoryInfo { total: 1 << 30, limit: 1 << 30, ..MemoryInfo::default() })
    }

    fn architectures(&self) -> Vec<&'static str> {
        vec!["Counting"]
    }

    fn load(&self, _: &ModelSource, _: &LoadOptions, _: LoadProgress<'_>) -> Result<Box<dyn ModelRunner>> {
        none()
    }

    fn purpose(&self, _: &ModelSource) -> Result<ModelPurpose> {
        Ok(ModelPurpose::Generate)
    }

    fn load_encoder(&self, _: &ModelSource, _: &EncoderOptions, _: LoadProgress<'_>) -> Result<Box<dyn EncoderRunner>> {
        none()
    }

    fn load_vision(
        &self,
        _: &ModelSource,
        _: &VisionOptions,
        _: LoadProgress<'_>,
    ) -> Result<Option<Box<dyn VisionEncoder>>> {
        none()
    }

    fn load_transcriber(&self, _: &ModelSource, _: &SpeechOptions, _: LoadProgress<'_>) -> Result<Transcriber> {
        none()
    }

    fn load_synthesizer(
        &self,
        _: &ModelSource,
        _: &SpeechOptions,
        _: LoadProgress<'_>,
    ) -> Result<Box<dyn Synthesizer>> {
        none()
    }

    fn outline(&self, _: &ModelSource) -> Result<ModelOutline> {
        let (architecture, fingerprint) = ("Counting".into(), self.fingerprint.into());
        Ok(ModelOutline { architecture, fingerprint, layers: vec![100; LAYERS], before: 10, after: 10 })
    }

    fn load_stage(
        &self,
        _: &ModelSource,
        _: &LoadOptions,
        layers: Range<usize>,
        _: LoadProgress<'_>,
    ) -> Result<Box<dyn StageRunner>> {
        self.loads.fetch_add(1, SeqCst);
        let num_blocks = usize::try_from(self.blocks.load(SeqCst)).unwrap();
        let group = KvGroup { window: None, num_blocks, block_bytes: 1 };
        let info = ModelInfo {
            architecture: "Counting".into(),
            device: DeviceKind::Cpu,
            parameters: 0,
            weight_bytes: 100 * layers.len() as u64,
            quantization: String::new(),
            context_length: 100,
            vocab_size: 1000,
            kv_cache: KvCacheSpec { block_size: 4, dtype: KvDtype::F32, groups: vec![group], rewind: None },
            kv_fingerprint: String::new(),
        };
        Ok(Box::new(Stage { layers, info }))
    }
}

struct Stage {
    layers: Range<usize>,
    info: ModelInfo,
}

impl StageRunner for Stage {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    fn width(&self) -> usize {
        1
    }

    fn hidden_dtype(&self) -> HiddenDtype {
        HiddenDtype::F32
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo::default())
    }

    fn step(&mut self, plan: &StepPlan<'_>, hidden: Vec<f32>) -> Result<StageOutput> {
        let tokens: Vec<u32> = plan.rows.iter().flat_map(|row| row.tokens).copied().collect();
        // The middle stage, or the second of two.
        if tokens.contains(&POISON) && self.layers.contains(&3) {
            return Err(Error::OutOfMemory("poison".into()));
        }
        let before = if self.layers.start == 0 { tokens.iter().map(|&t| t as f32).collect() } else { hidden };
        assert_eq!(before.len(), tokens.len());
        let added: f32 = self.layers.clone().map(|layer| layer as f32).sum();
        let made: Vec<f32> = before.into_iter().map(|x| x + added).collect();
        if self.layers.end < LAYERS {
            return Ok(StageOutput::Hidden(made));
        }
        let mut end = 0;
        let sampled = plan.rows.iter().filter_map(|row| {
            end += row.tokens.len();
            row.sample.as_ref().map(|_| Sampled { seq: row.seq, token: made[end - 1] as u32, logprobs: None })
        });
        Ok(StageOutput::Sampled(StepOutput { sampled: sampled.collect() }))
    }
}

fn around() -> Surroundings {
    let open_link: OpenLink = Arc::new(|_| -> Result<Box<dyn Link>> { Err(Error::Model("no transports here".into())) });
    Surroundings { token: None, say: Arc::new(|_| {}), open_link }
}

fn source() -> ModelSource {
    ModelSource { path: "counting".into() }
}

/// Follows on a thread for as long as the tests run.
fn follower(platform: Counting) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (source, options) = (source(), LoadOptions::default());
        follow(Follower { platform: &platform, source, options, listener, around: around() }).map(drop)
    });
    address
}

fn pipeline(followers: &[SocketAddr]) -> Pipeline {
    let followers = followers.iter().map(ToString::to_string).collect();
    Pipeline { followers, split: Split::Memory, transport: Transport::Tcp, patience: Duration::from_secs(5) }
}

fn led(platform: &Counting, pipeline: &Pipeline) -> (vllm_dist::Result<PipelineRunner>, PipelineStatus) {
    let status = PipelineStatus::default();
    let options = LoadOptions::default();
    (lead(platform, &source(), &options, pipeline, around(), status.clone(), &mut |_, _| {}), status)
}

/// A step of two sequences, of which only the second samples.
fn step(runner: &mut PipelineRunner, token: u32) -> Result<Vec<Sampled>> {
    let (params, tables) = (SamplingParams::default(), [vec![0]]);
    let sample = SampleAt { params: &params, prompt: &[], output: &[], processors: &[] };
    let row = |seq, tokens, sample| Row { seq: SeqId(seq), tokens, start: 0, tables: &tables, media: &[], sample };
    let tokens = [token];
    let rows = vec![row(1, &[7, 8], None), row(2, &tokens, Some(sample))];
    Ok(runner.step(&StepPlan { rows, ..StepPlan::default() })?.sampled)
}

const SUM: u32 = 28;

#[test]
fn every_layer_adds_its_number_once() {
    for ranks in 1..4 {
        let followers: Vec<_> = (0..ranks).map(|_| follower(Counting::new("a", 10))).collect();
        let (runner, status) = led(&Counting::new("a", 12), &pipeline(&followers));
        let mut runner = runner.unwrap();
        for token in [3, 5, 90] {
            let sampled = step(&mut runner, token).unwrap();
            assert_eq!(sampled, [Sampled { seq: SeqId(2), token: token + SUM, logprobs: None }], "{ranks}");
        }
        // Tables name what all ranks have.
        assert_eq!(runner.info().kv_cache.groups[0].num_blocks, 10);
        assert_eq!((status.problem(), status.ranks().len()), (None, ranks + 1));
        assert_eq!(runner.kv_lost(), None);
    }
}

#[test]
fn a_step_that_fails_on_another_rank_says_where_and_the_next_one_runs() {
    for ranks in [1, 2] {
        let followers: Vec<_> = (0..ranks).map(|_| follower(Counting::new("a", 10))).collect();
        let mut runner = led(&Counting::new("a", 10), &pipeline(&followers)).0.unwrap();
        for _ in 0..2 {
            let error = step(&mut runner, POISON).unwrap_err().to_string();
            assert_eq!(error, "rank 1: out of memory: poison", "{ranks}");
            assert_eq!(step(&mut runner, 1).unwrap()[0].token, 1 + SUM);
        }
        assert_eq!(runner.kv_lost(), None, "nobody was lost");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let here = Counting::new("a", 10);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (other, like) = (follower(Counting::new("b", 10)), follower(Counting::new("a", 10)));
    let quick = |pipeline: Pipeline| Pipeline { patience: Duration::ZERO, ..pipeline };
    for (name, pipeline, wanted) in [
        ("nobody", quick(pipeline(&[closed])), format!("rank 1 at {closed}: nobody listens there")),
        (
            "another model",
            pipeline(&[like, other]),
            format!("rank 2 at {other} has another model (counting): its conf"),
        ),
        (
            "layers",
            Pipeline { split: Split::Layers(vec![1, 2]), ..pipeline(&[like]) },
            "--pipeline-split adds up to 3 layers".into(),
        ),
        ("transport", Pipeline { transport: Transport::Ring, ..pipeline(&[like]) }, "no transports here".into()),
    ] {
        let error = led(&here, &pipeline).0.map(drop).unwrap_err().to_string();
        assert!(error.contains(&wanted), "{name}: {error}");
    }
}

#[test]
fn a_follower_keeps_what_it_has_for_the_next_to_come() {
    let (platform, other) = (Counting::new("a", 10), Counting::new("a", 10));
    let address = follower(platform.clone());
    for _ in 0..3 {
        let mut runner = led(&other, &pipeline(&[address])).0.unwrap();
        assert_eq!(step(&mut runner, 4).unwrap()[0].token, 4 + SUM);
    }
    assert_eq!(platform.loads.load(SeqCst), 1);
    let mut runner = led(&other, &Pipeline { split: Split::Layers(vec![7, 1]), ..pipeline(&[address]) }).0.unwrap();
    assert_eq!(step(&mut runner, 4).unwrap()[0].token, 4 + SUM);
    assert_eq!(platform.loads.load(SeqCst), 2, "other layers");
}

/// Passes bytes on between rank 0 and a follower, until it is cut.
#[derive(Clone)]
struct Cable {
    address: SocketAddr,
    ends: Arc<Mutex<Option<Vec<std::net::TcpStream>>>>,
}

impl Cable {
    fn to(follower: SocketAddr) -> Self {
        use std::net::{Shutdown, TcpStream};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cable = Self { address: listener.local_addr().unwrap(), ends: Arc::new(Mutex::new(Some(Vec::new()))) };
        let ends = Arc::clone(&cable.ends);
        thread::spawn(move || {
            for near in listener.incoming().map_while(std::result::Result::ok) {
                let Some(ends) = &mut *ends.lock().unwrap() else { continue };
                let far = TcpStream::connect(follower).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
                ends.extend([near, far]);
            }
        });
        cable
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap().take().unwrap_or_default() {
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
    }

    fn mend(&self) {
        *self.ends.lock().unwrap() = Some(Vec::new());
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ranks_that_lost_each_other_meet_again_and_kv_is_forgotten_once() {
    let platform = Counting::new("a", 10);
    let cable = Cable::to(follower(platform.clone()));
    let (runner, status) = led(&Counting::new("a", 10), &pipeline(&[cable.address]));
    let mut runner = runner.unwrap();
    for _ in 0..2 {
        assert_eq!(step(&mut runner, 4).unwrap()[0].token, 4 + SUM);
        assert_eq!(runner.kv_lost(), None);
        cable.cut();
        until("the loss is noticed", || status.problem().is_some());
        let gone = format!("rank 1 at {}", cable.address);
        let error = step(&mut runner, 4).unwrap_err().to_string();
        assert!(error.contains(&gone), "{error}");
        assert!(runner.kv_lost().is_some_and(|why| why.contains(&gone)));
        assert_eq!(runner.kv_lost(), None, "said once");
        cable.mend();
        until("all are there", || status.problem().is_none());
        assert!(runner.kv_lost().is_some(), "what was computed in between is of no use either");
        assert_eq!(runner.kv_lost(), None);
    }
    assert_eq!(platform.loads.load(SeqCst), 1, "weights are kept");
}
