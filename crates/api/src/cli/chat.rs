//! `vllm-mlx chat`.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _, stdin, stdout},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use anyhow::Context as _;
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, signal, sync::Notify};
use vllm_scheduler::Request;

use super::{
    args::{ModelArgs, RuntimeArgs, SamplingArgs, load_spec},
    files::{self, Files},
    progress,
    report::Report,
};
use crate::{
    answer::{Answer, End, TextOptions},
    http::Sampling,
    model::{ChatPrompt, ServedModel, load},
    vision::{Medium, SeenPrompt},
};

const HELP: &str = "\
/clear          forget the conversation
/image FILE     show an image with the next line (a file or a URL)
/video FILE     show a video with the next line
/system TEXT    set the instructions and forget the conversation (without TEXT: none)
/help           this
/exit           leave (also: Ctrl-D)
Ctrl-C stops an answer.";

/// Flags of `chat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Instructions for the model
    #[arg(long)]
    system: Option<String>,
    /// Print figures after each answer
    #[arg(long, short)]
    verbose: bool,
}

/// Talks until the user leaves.
///
/// # Errors
/// One line each: model, parameters, terminal.
pub fn run(args: &Args) -> anyhow::Result<()> {
    args.sampling.check()?;
    let model = load(load_spec(&args.model.model, &args.model.source, &args.runtime, 1), &progress::bars())?;
    // Fails now rather than after the first question.
    model.chat_prompt(&ChatPrompt {
        messages: vec![json!({ "role": "user", "content": "?" })],
        add_generation_prompt: true,
        ..ChatPrompt::default()
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut conversation = Conversation {
        args,
        model: &model,
        interrupt: Interrupt::install(&runtime),
        runtime: &runtime,
        messages: Vec::new(),
        files: Files::new()?,
        media: Vec::new(),
        shown: Vec::new(),
    };
    conversation.start_over(args.system.as_deref());
    let mut input = Input::open()?;
    while let Some(line) = input.read()? {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "" => {}
            "/exit" | "/quit" => break,
            "/help" => println!("{HELP}"),
            "/clear" => conversation.clear(),
            "/image" | "/video" => conversation.show(command == "/video", rest.trim()),
            "/system" => conversation.start_over(Some(rest.trim()).filter(|text| !text.is_empty())),
            other if other.starts_with('/') && rest.is_empty() => {
                println!("unknown command {other}: /help lists them");
            }
            _ => conversation.ask(line)?,
        }
    }
    model.shutdown();
    model.engine.join();
    Ok(())
}

struct Conversation<'a> {
    args: &'a Args,
    model: &'a ServedModel,
    interrupt: Interrupt,
    runtime: &'a Runtime,
    messages: Vec<Value>,
    files: Files,
    /// What was shown in messages so far.
    media: Vec<Medium>,
    /// What is shown with the next.
    shown: Vec<Medium>,
}

impl Conversation<'_> {
    /// Forgets everything and sets the instructions.
    fn start_over(&mut self, system: Option<&str>) {
        (self.media, self.shown) = (Vec::new(), Vec::new());
        self.messages = system.iter().map(|text| json!({ "role": "system", "content": text })).collect();
    }

    /// Forgets everything but the instructions.
    fn clear(&mut self) {
        self.messages.retain(|message| message["role"] == "system");
        (self.media, self.shown) = (Vec::new(), Vec::new());
    }

    /// Takes a file for the next line. What is wrong with it is printed.
    fn show(&mut self, is_video: bool, file: &str) {
        let opened = if is_video {
            self.files.video(self.model, file, Sampling::default())
        } else {
            self.files.image(self.model, file)
        };
        match opened {
            Ok(medium) => self.shown.push(medium),
            Err(error) => eprintln!("error: {}", super::one_line(&error)),
        }
    }

    /// Answers a line. What is wrong with it is printed; the conversation goes on.
    fn ask(&mut self, line: &str) -> anyhow::Result<()> {
        let before = self.media.len();
        let shown = std::mem::take(&mut self.shown);
        self.messages.push(json!({ "role": "user", "content": files::content(line, &shown) }));
        self.media.extend(shown);
        let mut answer = match self.start() {
            Ok(answer) => answer,
            Err(error) => {
                self.messages.pop();
                self.media.truncate(before);
                eprintln!("error: {}", super::one_line(&error));
                return Ok(());
            }
        };
        let (text, end) = self.runtime.block_on(self.interrupt.stream(&mut answer))?;
        // Cancels it if it was interrupted.
        drop(answer);
        match end {
            Some(End::Failed(error)) => eprintln!("error: {error}"),
            Some(End::Finished(ending)) if self.args.verbose => {
                eprintln!("{}", Report::new(&ending, &self.model.engine).line());
            }
            Some(End::Finished(_)) => {}
            None => println!("[stopped]"),
        }
        self.messages.push(json!({ "role": "assistant", "content": text }));
        Ok(())
    }

    fn start(&self) -> anyhow::Result<Answer> {
        let info = self.model.engine.info();
        let (messages, media) = (self.messages.clone(), self.media.clone());
        let seen = self.model.chat_prompt(&ChatPrompt { messages, media, add_generation_prompt: true })?;
        let SeenPrompt { tokens: prompt, media, .. } = seen;
        let room = info.context_length.checked_sub(prompt.len()).filter(|&room| room > 0).with_context(|| {
            format!(
                "the conversation has {} tokens, this model's context {}: /clear starts a new one",
                prompt.len(),
                info.context_length
            )
        })?;
        let request = Request {
            prompt,
            media,
            params: self.args.sampling.params(&self.model.sampling, info.vocab_size)?,
            max_tokens: self.args.sampling.max_tokens.min(room),
            stop_tokens: self.model.stop_tokens(),
            ..Request::new("chat")
        };
        let options = TextOptions { stop: self.args.sampling.stop.clone(), ..TextOptions::default() };
        Ok(Answer::start(&self.model.engine, &self.model.tokenizer, request, &options)?)
    }
}

/// Ctrl-C: stops the answer if there is one, else the program.
struct Interrupt {
    answering: Arc<AtomicBool>,
    pressed: Arc<Notify>,
}

impl Interrupt {
    fn install(runtime: &Runtime) -> Self {
        let interrupt = Self { answering: Arc::default(), pressed: Arc::default() };
        let (answering, pressed) = (Arc::clone(&interrupt.answering), Arc::clone(&interrupt.pressed));
        runtime.spawn(async move {
            while signal::ctrl_c().await.is_ok() {
                if answering.load(SeqCst) {
                    pressed.notify_one();
                } else {
                    // 128 + SIGINT, as shells count.
                    std::process::exit(130);
                }
            }
        });
        interrupt
    }

    /// Prints an answer as it comes; the end is `None` if it was interrupted.
    async fn stream(&self, answer: &mut Answer) -> anyhow::Result<(String, Option<End>)> {
        let mut out = stdout();
        let mut text = String::new();
        self.answering.store(true, SeqCst);
        let end = loop {
            let piece = tokio::select! {
                piece = answer.next() => piece,
                () = self.pressed.notified() => break None,
            };
            let Some(piece) = piece else { break None };
            out.write_all(piece.text.as_bytes())?;
            out.flush()?;
            text.push_str(&piece.text);
            if piece.end.is_some() {
                break piece.end;
            }
        };
        self.answering.store(false, SeqCst);
        writeln!(out)?;
        Ok((text, end))
    }
}

/// Lines from a terminal, with editing and history, or from a pipe.
enum Input {
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Pipe,
}

impl Input {
    fn open() -> anyhow::Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self::Pipe);
        }
        let mut editor = DefaultEditor::new().context("the terminal cannot be used")?;
        let history = history_file();
        if let Some(file) = &history {
            // The first time there is none.
            let _ = editor.load_history(file);
        }
        println!("/help lists the commands");
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    /// The next line; `None` at the end.
    fn read(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Pipe => {
                let mut line = String::new();
                let read = stdin().lock().read_line(&mut line).context("stdin is not readable")?;
                Ok((read > 0).then_some(line))
            }
            Self::Terminal { editor, history } => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        if !line.trim().is_empty() {
                            let _ = editor.add_history_entry(&line);
                            if let Some(file) = history {
                                // A history that can't be saved is no reason to stop talking.
                                let _ = editor.save_history(file);
                            }
                        }
                        return Ok(Some(line));
                    }
                    // There is no answer to stop: an unfinished line is dropped.
                    Err(ReadlineError::Interrupted) => println!("(/exit or Ctrl-D leaves)"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error).context("the terminal cannot be read"),
                }
            },
        }
    }
}

/// `$XDG_STATE_HOME/vllm-mlx/history`, else below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?.join("vllm-mlx");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
