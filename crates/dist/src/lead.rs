//! Rank 0: finds the others, says who does what, and joins them again when they have lost each other.

use std::{
    net::{TcpStream, ToSocketAddrs as _},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use vllm_platform::{DeviceKind, LoadOptions, LoadProgress, ModelInfo, ModelOutline, ModelSource, Platform};

use crate::{
    Error, PipelineRunner, PipelineStatus, RankStatus, Result, Split, Surroundings, Token, Transport,
    assignment::{Assignment, Machine, Message, Settings, StageFacts},
    carrier::{Carrier, Way},
    greet::{Purpose, greet},
    line::Line,
    runner::Together,
    session::Session,
    split::split,
    threaded::Threaded,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How often the operator hears who is being waited for.
const REMINDER: Duration = Duration::from_secs(10);
/// How long requests may take to learn that all is over, before the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A pipeline, as its operator wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Where ranks 1, 2, … listen, as all ranks reach them.
    pub followers: Vec<String>,
    /// Who gets which layers.
    pub split: Split,
    /// How hidden states travel.
    pub transport: Transport,
    /// How long ranks are waited for at the start.
    pub patience: Duration,
}

/// What stays the same from one joining to the next.
struct Joining {
    followers: Vec<String>,
    transport: Transport,
    around: Surroundings,
    outline: ModelOutline,
    settings: Settings,
    /// By rank.
    layers: Vec<Range<usize>>,
    own: StageFacts,
    /// Blocks of each group that block tables may name; not known before the first joining.
    blocks: Vec<usize>,
}

/// A machine's own options, and what others are told of it.
pub(crate) fn machine(
    platform: &dyn Platform,
    source: &ModelSource,
    options: &LoadOptions,
    outline: &ModelOutline,
) -> Result<Machine> {
    let device: DeviceKind = options.device.resolve(&platform.devices())?;
    let memory = platform.memory(device)?.limit;
    // What an operator leaves to the process is what layers are shared out by.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let memory = (memory as f64 * options.memory_utilization) as u64;
    Ok(Machine {
        fingerprint: outline.fingerprint.clone(),
        model: source.path.display().to_string(),
        device: device.to_string(),
        memory,
    })
}

/// Joins all ranks of a pipeline and loads this one's layers. The runner stays on the calling thread; `status` follows it.
///
/// # Errors
/// [`Error::Gone`] if a rank isn't there in time, [`Error::Refused`] if one has another model, version or token, or the pipeline makes
/// no sense; [`Error::Stage`] if the layers can't be loaded.
pub fn lead(
    platform: &dyn Platform,
    source: &ModelSource,
    options: &LoadOptions,
    pipeline: &Pipeline,
    around: Surroundings,
    status: PipelineStatus,
    progress: LoadProgress<'_>,
) -> Result<PipelineRunner> {
    let session = Session::default();
    let led = lead_in(&session, platform, source, options, pipeline, around, status, progress);
    // Whoever has come already is let go.
    led.inspect_err(|error| session.end(error.to_string()))
}

#[allow(clippy::too_many_arguments)]
fn lead_in(
    session: &Session,
    platform: &dyn Platform,
    source: &ModelSource,
    options: &LoadOptions,
    pipeline: &Pipeline,
    around: Surroundings,
    status: PipelineStatus,
    progress: LoadProgress<'_>,
) -> Result<PipelineRunner> {
    let Pipeline { followers, transport, patience, .. } = pipeline;
    let outline = platform.outline(source)?;
    let own = machine(platform, source, options, &outline)?;
    let met = meet(followers, &outline, &around, session, *patience)?;
    let memory: Vec<u64> = std::iter::once(own.memory).chain(met.iter().map(|(_, machine)| machine.memory)).collect();
    let layers = split(&outline, &pipeline.split, &memory).map_err(|error| Error::Refused(error.to_string()))?;
    let settings = Settings::of(options);
    let number = session_number();
    let lines: Vec<Line> = met.into_iter().map(|(line, _)| line).collect();
    assign(&lines, number, &layers, followers, *transport, &settings)?;
    // All ranks read their files at the same time.
    let stage = platform.load_stage(source, options, layers[0].clone(), progress)?;
    let own = StageFacts::of(&*stage);
    let mut joining = Joining {
        followers: followers.clone(),
        transport: *transport,
        around,
        outline,
        settings,
        layers,
        own,
        blocks: Vec::new(),
    };
    let (together, ranks) = joining.assemble(session.clone(), number, lines)?;
    joining.blocks = blocks(&joining.own, &ranks);
    status.set_ranks(joining.status(&ranks));
    let info = whole(stage.info(), &joining, &ranks);
    joining.report(&ranks);
    let (closing, (sender, again)) = (Arc::new(AtomicBool::new(false)), channel());
    let (first, closes) = (together.session.clone(), Arc::clone(&closing));
    let spawned =
        thread::Builder::new().name("ranks".into()).spawn(move || joining.keep(first, &sender, &status, &closes));
    spawned.map_err(|error| Error::Refused(error.to_string()))?;
    Ok(PipelineRunner::new(stage, info, together, again, closing))
}

/// The least of all ranks' blocks, by group.
fn blocks(own: &StageFacts, ranks: &[StageFacts]) -> Vec<usize> {
    let least = |(group, own): (usize, usize)| {
        ranks.iter().filter_map(|rank| rank.blocks().nth(group)).chain([own]).min().unwrap_or(own)
    };
    own.blocks().enumerate().map(least).collect()
}

/// Rank 0's stage in numbers that hold for all ranks together.
fn whole(stage: &ModelInfo, joining: &Joining, ranks: &[StageFacts]) -> ModelInfo {
    let mut info = stage.clone();
    for (group, blocks) in info.kv_cache.groups.iter_mut().zip(&joining.blocks) {
        group.num_blocks = *blocks;
    }
    info.weight_bytes += ranks.iter().map(|rank| rank.weight_bytes).sum::<u64>();
    info
}

impl Joining {
    /// Waits for ranks to lose each other and joins them again, for as long as the runner is there.
    fn keep(self, mut session: Session, sender: &Sender<Together>, status: &PipelineStatus, closing: &AtomicBool) {
        let say = &self.around.say;
        loop {
            let Some(why) = session.wait(PAUSE) else { continue };
            if closing.load(SeqCst) {
                return;
            }
            status.set_problem(Some(why.clone()));
            if self.transport != Transport::Tcp {
                thread::sleep(LAST_WORDS);
                return status.set_over(over(&why, self.transport));
            }
            say(&format!("{why}: requests fail until all ranks are there"));
            let mut said = why;
            loop {
                thread::sleep(PAUSE);
                if closing.load(SeqCst) {
                    return;
                }
                match self.join() {
                    Ok((together, ranks)) => {
                        session = together.session.clone();
                        if sender.send(together).is_err() {
                            return session.end("rank 0 has ended");
                        }
                        status.set_ranks(self.status(&ranks));
                        say("all ranks are there again");
                        break;
                    }
                    Err(error) => {
                        let why = error.to_string();
                        if why != said {
                            say(&why);
                            status.set_problem(Some(why.clone()));
                            said = why;
                        }
                    }
                }
            }
        }
    }

    fn join(&self) -> Result<(Together, Vec<StageFacts>)> {
        let (session, number) = (Session::default(), session_number());
        let joined = || {
            let met = meet(&self.followers, &self.outline, &self.around, &session, Duration::ZERO)?;
            let lines: Vec<Line> = met.into_iter().map(|(line, _)| line).collect();
            assign(&lines, number, &self.layers, &self.followers, self.transport, &self.settings)?;
            self.assemble(session.clone(), number, lines)
        };
        joined().inspect_err(|error| session.end(error.to_string()))
    }

    /// Waits until all have loaded their layers and are connected with their neighbours.
    fn assemble(&self, session: Session, number: u64, lines: Vec<Line>) -> Result<(Together, Vec<StageFacts>)> {
        let mut ranks = Vec::new();
        for line in &lines {
            let Message::Ready(facts) = line.receive().map_err(Error::Gone)? else { return Err(confused(line)) };
            if let Some(difference) = self.own.difference(&facts) {
                return Err(Error::Refused(format!("{}: {difference}", line.peer)));
            }
            if self.blocks.iter().zip(facts.blocks()).any(|(&named, there)| there < named) {
                let why = "has room for fewer KV blocks than when rank 0 was started: start that again, too";
                return Err(Error::Refused(format!("{} {why}", line.peer)));
            }
            ranks.push(facts);
        }
        lines.iter().try_for_each(|line| line.send(&Message::Connect)).map_err(Error::Gone)?;
        let way = match self.transport {
            Transport::Tcp => {
                let (address, peer) = (&self.followers[0], lines[0].peer.clone());
                let stream = hidden_from(address, number, self.around.token.as_ref(), &session);
                Way::Tcp { before: Some((stream.map_err(|error| about(&peer, error))?, peer)), after: None }
            }
            other => {
                Way::Threaded(Threaded::open(other.name(), &self.around.open_link, 0, self.layers.len(), &session)?)
            }
        };
        for line in &lines {
            let Message::Connected = line.receive().map_err(Error::Gone)? else { return Err(confused(line)) };
        }
        let carrier = Carrier { rank: 0, width: self.own.width, dtype: self.own.hidden, session: session.clone(), way };
        Ok((Together { session, lines, carrier }, ranks))
    }

    fn status(&self, ranks: &[StageFacts]) -> Vec<RankStatus> {
        let addresses = std::iter::once(None).chain(self.followers.iter().cloned().map(Some));
        let all = std::iter::once(&self.own).chain(ranks).zip(addresses).zip(&self.layers);
        all.enumerate()
            .map(|(rank, ((facts, address), layers))| RankStatus {
                rank,
                address,
                layers: layers.clone(),
                device: facts.device.clone(),
                weight_bytes: facts.weight_bytes,
            })
            .collect()
    }

    fn report(&self, ranks: &[StageFacts]) {
        for RankStatus { rank, address, layers, device, weight_bytes } in self.status(ranks) {
            let at = address.map_or("here".into(), |address| format!("at {address}"));
            let (first, last, mib) = (layers.start, layers.end - 1, weight_bytes >> 20);
            (self.around.say)(&format!("rank {rank} {at}: layers {first} to {last}, {mib} MiB of weights on {device}"));
        }
    }
}

/// Lines to all who follow, each with what it says of itself; waits for those that aren't there yet.
fn meet(
    followers: &[String],
    outline: &ModelOutline,
    around: &Surroundings,
    session: &Session,
    patience: Duration,
) -> Result<Vec<(Line, Machine)>> {
    let until = Instant::now() + patience;
    let mut met = Vec::new();
    for (address, rank) in followers.iter().zip(1..) {
        let name = format!("rank {rank} at {address}");
        let mut reminded = None;
        let stream = loop {
            match call(address, Purpose::Line, around.token.as_ref()) {
                Ok(stream) => break stream,
                Err(Error::Gone(why)) if Instant::now() < until => {
                    if reminded.is_none_or(|at: Instant| at.elapsed() >= REMINDER) {
                        (around.say)(&format!("waiting for {name}: {why}"));
                        reminded = Some(Instant::now());
                    }
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(about(&name, error)),
            }
        };
        let line = Line::new(stream, name, session).map_err(Error::Gone)?;
        let Message::Machine(machine) = line.receive().map_err(Error::Gone)? else { return Err(confused(&line)) };
        if machine.fingerprint != outline.fingerprint {
            let (name, model) = (&line.peer, &machine.model);
            let [here, there] = [&outline.fingerprint, &machine.fingerprint].map(|text| text.get(..12).unwrap_or(text));
            let why =
                format!("{name} has another model ({model}): its configuration and weights are {there}…, {here}… here");
            return Err(Error::Refused(why));
        }
        met.push((line, machine));
    }
    Ok(met)
}

/// Tells each rank what it is to do.
fn assign(
    lines: &[Line],
    session: u64,
    layers: &[Range<usize>],
    followers: &[String],
    transport: Transport,
    settings: &Settings,
) -> Result<()> {
    for (line, rank) in lines.iter().zip(1..) {
        let assignment = Assignment {
            session,
            rank,
            size: layers.len(),
            layers: layers[rank].clone(),
            before: followers.get(rank).cloned(),
            transport,
            settings: settings.clone(),
        };
        line.send(&Message::Assign(Box::new(assignment))).map_err(Error::Gone)?;
    }
    Ok(())
}

/// A greeted connection.
pub(crate) fn call(address: &str, purpose: Purpose, token: Option<&Token>) -> Result<TcpStream> {
    let unknown = |error: std::io::Error| Error::Gone(format!("its address is not known: {error}"));
    let mut why = Error::Gone("its name has no address".into());
    for address in address.to_socket_addrs().map_err(unknown)? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(mut stream) => return greet(&mut stream, purpose, token).map(|()| stream),
            Err(error) => why = Error::Gone(crate::wire::io(&error)),
        }
    }
    Err(why)
}

/// The connection over which hidden states come.
pub(crate) fn hidden_from(
    address: &str,
    session_number: u64,
    token: Option<&Token>,
    session: &Session,
) -> Result<TcpStream> {
    let stream = call(address, Purpose::Hidden { session: session_number }, token)?;
    session.watch(&stream).map_err(Error::Gone)?;
    Ok(stream)
}

/// An error with the rank that it is about.
fn about(rank: &str, error: Error) -> Error {
    match error {
        Error::Gone(why) => Error::Gone(format!("{rank}: {why}")),
        Error::Refused(why) => Error::Refused(format!("{rank}: {why}")),
        other => Error::Refused(format!("{rank}: {other}")),
    }
}

/// Why a process ends whose transport can't be joined again.
pub(crate) fn over(why: &str, transport: Transport) -> String {
    format!("{why}; over {transport} ranks can't join again: all have to be started anew")
}

fn confused(line: &Line) -> Error {
    Error::Refused(format!("{} says something else than it should", line.peer))
}

fn session_number() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    #[allow(clippy::cast_possible_truncation)]
    let nanos = since.as_nanos() as u64;
    nanos
}
