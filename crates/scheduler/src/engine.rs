//! Starting an engine: a thread of its own that makes the runner and then takes one step after another.

mod client;
mod run;
mod tier;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::channel,
    thread,
};

use tokio::sync::oneshot;
use vllm_platform::ModelRunner;

use self::run::EngineLoop;
use crate::{EngineConfig, EngineHandle, StartError, handle::lock};

/// Makes engines; see the [crate's example](crate).
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Makes a runner on a new thread and returns when it is ready.
    ///
    /// # Errors
    /// [`StartError`] if the configuration makes no sense or `make_runner` fails or panics.
    ///
    /// # Panics
    /// On a thread that runs async tasks: use [`Engine::start_async`] there.
    pub fn start<F>(make_runner: F, config: EngineConfig) -> Result<EngineHandle, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn ModelRunner>> + Send + 'static,
    {
        let ready = Self::spawn(make_runner, config)?;
        ready.blocking_recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread is gone".into())))
    }

    /// [`Engine::start`] without blocking: the runner is being made from the call on, whether or not the future
    /// is polled.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_async<F>(
        make_runner: F,
        config: EngineConfig,
    ) -> impl Future<Output = Result<EngineHandle, StartError>> + Send + use<F>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn ModelRunner>> + Send + 'static,
    {
        let ready = Self::spawn(make_runner, config);
        async move { ready?.await.unwrap_or_else(|_| Err(StartError::Panicked("the thread is gone".into()))) }
    }

    fn spawn<F>(
        make_runner: F,
        config: EngineConfig,
    ) -> Result<oneshot::Receiver<Result<EngineHandle, StartError>>, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn ModelRunner>> + Send + 'static,
    {
        config.check()?;
        let (ready, is_ready) = oneshot::channel();
        let (thread_sender, thread_receiver) = channel();
        let spawned = thread::Builder::new().name("engine".into()).spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(make_runner))
                .map_err(|panic| StartError::Panicked(panic_text(&*panic)))
                .and_then(|made| made.map_err(StartError::from));
            let runner = match made {
                Ok(runner) => runner,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let (engine, handle) = match EngineLoop::new(runner, config) {
                Ok(made) => made,
                Err(error) => return drop(ready.send(Err(error))),
            };
            // The thread's own handle, so that any clone can wait for its end.
            *lock(&handle.thread) = thread_receiver.recv().ok();
            if ready.send(Ok(handle)).is_ok() {
                engine.run();
            }
        });
        let thread = spawned.map_err(|error| StartError::Thread(error.to_string()))?;
        // The receiver is gone if the runner could not be made.
        let _ = thread_sender.send(thread);
        Ok(is_ready)
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
