//! A program that may not outlive its task.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// What of a program's complaints is kept.
const MAX_COMPLAINT: u64 = 4096;

/// How a program ended.
pub(super) struct Outcome<T> {
    /// What was read of its output.
    pub read: T,
    pub status: ExitStatus,
    /// The beginning of what it wrote to its standard error.
    pub complaint: String,
    /// Whether it was killed because its time was up.
    pub late: bool,
}

/// Runs a program on a file, which it finds as its standard input, until `read` has what it wants of its output or
/// `deadline` is past. When this returns the program is gone, with whatever it started.
///
/// # Errors
/// If it can't be started.
pub(super) fn run<T>(
    command: &mut Command,
    input: &File,
    deadline: Instant,
    read: impl FnOnce(&mut BufReader<ChildStdout>) -> T,
) -> io::Result<Outcome<T>> {
    let mut input = input.try_clone()?;
    input.rewind()?;
    command.stdin(Stdio::from(input)).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.spawn()?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipes to a program"));
    };
    let child = Running(Mutex::new(child));
    thread::scope(|scope| {
        let complaint = scope.spawn(|| complaint(stderr));
        let (done, waiting) = mpsc::channel::<()>();
        let child = &child;
        let watch = scope.spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            let late = waiting.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                child.kill();
            }
            late
        });
        // Even if `read` panics the program is killed and so the threads come to an end.
        let guard = KillOnDrop(child);
        let mut stdout = BufReader::with_capacity(1 << 16, stdout);
        let read = read(&mut stdout);
        // If it has more to say, it hears that nobody listens.
        drop(stdout);
        let status = child.wait();
        drop(guard);
        drop(done);
        let late = watch.join().unwrap_or(false);
        let complaint = complaint.join().unwrap_or_default();
        Ok(Outcome { read, status: status?, complaint, late })
    })
}

struct Running(Mutex<Child>);

impl Running {
    /// Waits, without keeping the one from it who would kill.
    fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.lock().unwrap_or_else(PoisonError::into_inner).try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it and what it has started.
    fn kill(&self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(unix)]
        if let Ok(group) = i32::try_from(child.id()) {
            // Its group has its number. Only its children may be left of it.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = child.kill();
    }
}

struct KillOnDrop<'a>(&'a Running);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        self.0.kill();
        let _ = self.0.wait();
    }
}

/// The beginning of what comes; the rest is taken and dropped, so that the writer doesn't wait.
fn complaint(mut stderr: impl Read) -> String {
    let mut start = vec![];
    let _ = stderr.by_ref().take(MAX_COMPLAINT).read_to_end(&mut start);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&start).into_owned()
}
