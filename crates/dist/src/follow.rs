//! All ranks but the first: wait for rank 0, load what it says, compute what it says.

use std::{
    convert::Infallible,
    net::{TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use vllm_platform::{LoadOptions, ModelSource, Platform, StageOutput, StageRunner};

use crate::{
    Error, Result, SILENCE, Surroundings, Transport,
    assignment::{Assignment, Machine, Message, Settings, StageFacts},
    carrier::{Carrier, Way},
    greet::{Purpose, welcome},
    lead::{hidden_from, machine, over},
    line::Line,
    plan::PlanData,
    session::Session,
    threaded::Threaded,
};

/// A machine that takes part.
pub struct Follower<'a> {
    /// What loads its layers.
    pub platform: &'a dyn Platform,
    /// Its copy of the model.
    pub source: ModelSource,
    /// Its own options; what all ranks must do alike comes from rank 0.
    pub options: LoadOptions,
    /// Where it is found.
    pub listener: TcpListener,
    /// What it is in.
    pub around: Surroundings,
}

/// A stage, and what it was loaded for.
struct Loaded {
    layers: Range<usize>,
    settings: Settings,
    stage: Box<dyn StageRunner>,
}

/// Those who come in.
struct Doors {
    lines: Receiver<(TcpStream, String)>,
    /// With the session that each is for.
    hidden: Receiver<(u64, TcpStream)>,
    /// Whether a rank 0 is being followed.
    busy: Arc<AtomicBool>,
}

/// Follows one rank 0 after the other. What was loaded for the last one is kept for the next.
///
/// # Errors
/// If the model's files are unusable, or its layers can't be apart from each other; [`Error::Over`] if rank 0 has gone and its
/// transport can't be joined again.
pub fn follow(follower: Follower<'_>) -> Result<Infallible> {
    let Follower { platform, source, options, listener, around } = follower;
    let outline = platform.outline(&source)?;
    let machine = machine(platform, &source, &options, &outline)?;
    let doors = Doors::open(listener, &around)?;
    let mut loaded = None;
    loop {
        let Ok((stream, peer)) = doors.lines.recv() else {
            return Err(Error::Refused("nobody listens any more".into()));
        };
        doors.busy.store(true, SeqCst);
        let session = Session::default();
        let mut visit =
            Visit { platform, source: &source, options: &options, around: &around, session: &session, link: None };
        let why = match Line::new(stream, format!("rank 0 at {peer}"), &session) {
            Ok(line) => {
                (around.say)(&format!("{} is here", line.peer));
                let Err(why) = visit.serve(&line, &machine, &doors, &mut loaded);
                // Rank 0 should hear it before the line breaks.
                let _ = line.send(&Message::Lost(why.clone()));
                why
            }
            Err(why) => why,
        };
        session.end(why.clone());
        if let Some(transport) = visit.link {
            // It can't be joined again: there is nothing left to do but to end.
            return Err(Error::Over(over(&why, transport)));
        }
        doors.busy.store(false, SeqCst);
        (around.say)(&format!("{why}; waiting for rank 0"));
    }
}

impl Doors {
    fn open(listener: TcpListener, around: &Surroundings) -> Result<Self> {
        let (to_lines, lines) = channel();
        let (to_hidden, hidden) = channel();
        let busy = Arc::new(AtomicBool::new(false));
        let (porter, is_busy) = (around.clone(), Arc::clone(&busy));
        let accept = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                };
                let (around, busy, lines, hidden) =
                    (porter.clone(), Arc::clone(&is_busy), to_lines.clone(), to_hidden.clone());
                // Nobody who dawdles keeps others waiting.
                let greeted = thread::Builder::new()
                    .name("greet".into())
                    .spawn(move || let_in(stream, &around, &busy, &lines, &hidden));
                if let Err(error) = greeted {
                    tracing::warn!(%error, "nobody can be let in");
                }
            }
        };
        let spawned = thread::Builder::new().name("accept".into()).spawn(accept);
        spawned.map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Self { lines, hidden, busy })
    }

    /// The connection over which the rank after this one takes hidden states.
    fn hidden(&self, wanted: u64, session: &Session) -> Result<TcpStream, String> {
        let until = Instant::now() + SILENCE;
        loop {
            if let Some(why) = session.ended() {
                return Err(why);
            }
            match self.hidden.recv_timeout(Duration::from_millis(50)) {
                // Others are left over from sessions that have ended.
                Ok((number, stream)) if number == wanted => return session.watch(&stream).map(|()| stream),
                Ok(_) => {}
                Err(_) if Instant::now() > until => return Err("the rank after it doesn't connect to it".into()),
                Err(_) => {}
            }
        }
    }
}

fn let_in(
    mut stream: TcpStream,
    around: &Surroundings,
    busy: &AtomicBool,
    lines: &Sender<(TcpStream, String)>,
    hidden: &Sender<(u64, TcpStream)>,
) {
    let peer = stream.peer_addr().map_or_else(|_| "an unknown address".into(), |address| address.to_string());
    let purpose = welcome(&mut stream, around.token.as_ref(), |purpose| match purpose {
        Purpose::Line if busy.load(SeqCst) => Err(Error::Gone("it follows another rank 0".into())),
        _ => Ok(()),
    });
    // The receivers live as long as the process.
    match purpose {
        Ok(Purpose::Line) => drop(lines.send((stream, peer))),
        Ok(Purpose::Hidden { session }) => drop(hidden.send((session, stream))),
        Err(error) => (around.say)(&format!("{peer} was turned away: {error}")),
    }
}

/// What a rank 0 finds here.
struct Visit<'a> {
    platform: &'a dyn Platform,
    source: &'a ModelSource,
    options: &'a LoadOptions,
    around: &'a Surroundings,
    session: &'a Session,
    /// The platform's transport, once it was opened.
    link: Option<Transport>,
}

impl Visit<'_> {
    /// Does what rank 0 says until there is a reason not to.
    fn serve(
        &mut self,
        line: &Line,
        machine: &Machine,
        doors: &Doors,
        loaded: &mut Option<Loaded>,
    ) -> Result<Infallible, String> {
        line.send(&Message::Machine(machine.clone()))?;
        let Message::Assign(assignment) = line.receive()? else { return Err(confused(line)) };
        let stage = self.load(&assignment, loaded)?;
        let facts = StageFacts::of(stage);
        line.send(&Message::Ready(facts.clone()))?;
        let Message::Connect = line.receive()? else { return Err(confused(line)) };
        let way = self.connect(&assignment, doors)?;
        let (rank, session) = (assignment.rank, self.session.clone());
        let mut carrier = Carrier { rank, width: facts.width, dtype: facts.hidden, session, way };
        line.send(&Message::Connected)?;
        loop {
            let Message::Step { number, plan } = line.receive()? else { return Err(confused(line)) };
            compute(stage, &mut carrier, line, &assignment, number, &plan)?;
        }
    }

    /// The stage wanted: that of the last time, if it is the same.
    fn load<'l>(
        &self,
        assignment: &Assignment,
        loaded: &'l mut Option<Loaded>,
    ) -> Result<&'l mut dyn StageRunner, String> {
        let Assignment { rank, size, layers, settings, .. } = assignment;
        let fits = |loaded: &Loaded| loaded.layers == *layers && loaded.settings == *settings;
        if !loaded.as_ref().is_some_and(fits) {
            // First, so that both are never there at once.
            *loaded = None;
            let options = settings.apply(self.options);
            let stage = self.platform.load_stage(self.source, &options, layers.clone(), &mut |_, _| {});
            let stage = stage.map_err(|error| format!("rank {rank} can't load its layers: {error}"))?;
            let (first, last, info) = (layers.start, layers.end.saturating_sub(1), stage.info());
            let (mib, device) = (info.weight_bytes >> 20, info.device);
            (self.around.say)(&format!(
                "rank {rank} of {size}: layers {first} to {last}, {mib} MiB of weights on {device}"
            ));
            *loaded = Some(Loaded { layers: layers.clone(), settings: settings.clone(), stage });
        }
        match loaded {
            Some(loaded) => Ok(&mut *loaded.stage),
            None => Err(format!("rank {rank} has no layers")),
        }
    }

    fn connect(&mut self, assignment: &Assignment, doors: &Doors) -> Result<Way, String> {
        let Assignment { session: number, rank, size, before, transport, .. } = assignment;
        if *transport != Transport::Tcp {
            self.link = Some(*transport);
            let link = Threaded::open(transport.name(), &self.around.open_link, *rank, *size, self.session);
            return link.map(Way::Threaded).map_err(|error| format!("rank {rank}: {error}"));
        }
        let before = match before {
            Some(address) => {
                let peer = format!("rank {} at {address}", rank + 1);
                let stream = hidden_from(address, *number, self.around.token.as_ref(), self.session);
                let stream = stream.map_err(|error| format!("rank {rank} can't reach {peer}: {error}"))?;
                Some((stream, peer))
            }
            None => None,
        };
        let after = doors.hidden(*number, self.session).map_err(|why| format!("rank {rank}: {why}"))?;
        Ok(Way::Tcp { before, after: Some(after) })
    }
}

/// One step: from the rank before, through the stage, to the rank after. A stage that fails tells the one after it.
fn compute(
    stage: &mut dyn StageRunner,
    carrier: &mut Carrier,
    line: &Line,
    assignment: &Assignment,
    number: u64,
    plan: &PlanData,
) -> Result<(), String> {
    let (rank, tokens) = (assignment.rank, plan.tokens());
    let received = if assignment.before.is_some() { carrier.receive(number, tokens)? } else { Ok(Vec::new()) };
    let made = received.and_then(|hidden| match stage.step(&plan.plan(), hidden) {
        Ok(StageOutput::Hidden(hidden)) => Ok(hidden),
        Ok(StageOutput::Sampled(_)) => Err(format!("rank {rank} has the last layers, which are rank 0's")),
        Err(error) => Err(format!("rank {rank}: {error}")),
    });
    if let (Err(why), true) = (&made, carrier.carries_no_text()) {
        line.send(&Message::StepFailed { number, why: why.clone() })?;
    }
    carrier.send(number, tokens, made)
}

fn confused(line: &Line) -> String {
    format!("{} says something else than it should", line.peer)
}
