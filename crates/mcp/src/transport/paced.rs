//! A reader that takes only so much a second, so that a process which writes without end waits on its pipe.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Bytes that may come at once: more than the longest message.
const BURST: i64 = 32 << 20;
/// Bytes a second after that.
const RATE: i64 = 8 << 20;
/// How long to wait for a new allowance.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Paced<R> {
    inner: R,
    /// Below 0 after a long read: that is paid back first.
    allowance: i64,
    counted: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<R> Paced<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, allowance: BURST, counted: Instant::now(), pause: None }
    }

    fn refill(&mut self) {
        let now = Instant::now();
        let millis = i64::try_from(now.duration_since(self.counted).as_millis()).unwrap_or(i64::MAX);
        let more = millis.saturating_mul(RATE / 1000);
        if more > 0 {
            self.allowance = self.allowance.saturating_add(more).min(BURST);
            self.counted = now;
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Paced<R> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(context));
                this.pause = None;
            }
            this.refill();
            if this.allowance > 0 {
                break;
            }
            this.pause = Some(Box::pin(sleep(PAUSE)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        this.allowance = this.allowance.saturating_sub(i64::try_from(read).unwrap_or(i64::MAX));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_without_end_comes_slowly() {
        let mut reader = Paced::new(tokio::io::repeat(b'x'));
        let mut buffer = vec![0; 1 << 20];
        let start = Instant::now();
        let mut seconds = vec![];
        for _ in 0..(BURST + 10 * RATE) >> 20 {
            reader.read_exact(&mut buffer).await.unwrap();
            seconds.push(start.elapsed().as_secs());
        }
        assert_eq!(seconds[(BURST >> 20) as usize - 1], 0, "the burst is free");
        assert!((9..=11).contains(seconds.last().unwrap()), "{seconds:?}");
    }
}
