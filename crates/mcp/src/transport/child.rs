//! A server that is a process of ours.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rmcp::{RoleClient, transport::async_rw::AsyncRwTransport};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::paced::Paced;
use crate::config::{INHERITED, Secret};

/// Longest piece of its standard error that makes one line of our log.
const MAX_LINE: u64 = 4096;

/// How a process is spoken to.
pub type Pipes = AsyncRwTransport<RoleClient, Paced<ChildStdout>, ChildStdin>;

/// The process, in a group of its own with whatever it starts. Its life ends with this value.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    /// Its process group, as long as it is certainly this one's.
    group: Option<u32>,
}

impl Child {
    /// Starts it: directly, never through a shell, and with little of our environment.
    ///
    /// # Errors
    /// The program is not there or can't be run.
    pub fn start(
        server: &str,
        program: &str,
        args: &[String],
        env: &BTreeMap<String, Secret>,
        cwd: Option<&Path>,
    ) -> io::Result<(Self, Pipes)> {
        let mut command = Command::new(program);
        command.args(args).env_clear().kill_on_drop(true);
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(env.iter().map(|(name, value)| (name, value.reveal())));
        if let Some(cwd) = cwd {
            command.current_dir(cwd);
        }
        // Not our terminal's: Ctrl-C is for us, and we end it in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe to the process");
        let stdin = process.stdin.take().ok_or_else(missing)?;
        let stdout = process.stdout.take().ok_or_else(missing)?;
        let stderr = process.stderr.take().ok_or_else(missing)?;
        tokio::spawn(log(server.to_owned(), stderr));
        let group = process.id();
        Ok((Self { process, group }, AsyncRwTransport::new(Paced::new(stdout), stdin)))
    }

    /// Waits for its end; `None` if that can't be known.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        let status = self.process.wait().await.ok()?;
        // What it started and left behind goes, too. Later, the group's number may be another's.
        self.signal(Signal::Kill);
        self.group = None;
        Some(status)
    }

    /// How it ended, if it did or does so within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        timeout(limit, self.wait()).await.ok()?
    }

    /// Waits for its end, its input being closed; asks it to go after half of `limit`, and kills it after all of it.
    pub async fn stop(mut self, limit: Duration) {
        if self.ended(limit / 2).await.is_some() {
            return;
        }
        self.signal(Signal::Ask);
        if self.ended(limit / 2).await.is_some() {
            return;
        }
        self.signal(Signal::Kill);
        // Killed or not, it is not waited for longer; the runtime collects what is left of it.
        self.ended(Duration::from_secs(1)).await;
    }

    /// To the whole group: what `npx` and its like started, too.
    #[cfg(unix)]
    fn signal(&self, signal: Signal) {
        use nix::{sys::signal, unistd::Pid};
        let Some(group) = self.group.and_then(|id| i32::try_from(id).ok()) else { return };
        let signal = match signal {
            Signal::Ask => signal::SIGTERM,
            Signal::Kill => signal::SIGKILL,
        };
        // An error means that nobody is left.
        let _ = signal::killpg(Pid::from_raw(group), signal);
    }

    #[cfg(not(unix))]
    fn signal(&self, _: Signal) {}
}

#[derive(Debug, Clone, Copy)]
enum Signal {
    Ask,
    Kill,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::Kill);
    }
}

/// Brings the process's standard error into our log, to its end.
async fn log(server: String, stderr: ChildStderr) {
    let mut reader = BufReader::new(Paced::new(stderr));
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::debug!(server, line = String::from_utf8_lossy(&line).trim_end(), "MCP server's stderr"),
        }
    }
}
