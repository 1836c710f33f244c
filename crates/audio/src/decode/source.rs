//! Where bytes come from.

use std::{
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, PoisonError},
};

use symphonia::core::io::MediaSource;

/// Bytes with a known end.
pub(super) struct Source {
    inner: Box<dyn Bytes>,
    length: u64,
    trouble: Trouble,
}

/// What the source itself has failed with. Decoders use the same type of error for what they find in the bytes, and may take a
/// source's for the end.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<io::Error>>>);

impl Trouble {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind != ErrorKind::Interrupted {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            kind.into()
        })
    }

    pub fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

trait Bytes: Read + Seek + Send + Sync {}

impl<T: Read + Seek + Send + Sync> Bytes for T {}

impl Source {
    /// All of `inner`, from its beginning.
    pub fn new(mut inner: impl Read + Seek + Send + Sync + 'static) -> io::Result<Self> {
        let length = inner.seek(SeekFrom::End(0))?;
        inner.rewind()?;
        Ok(Self { inner: Box::new(inner), length, trouble: Trouble::default() })
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.trouble.note(self.inner.read(buffer))
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // Before the beginning, or the like: a mistake of the reader, who is told.
        self.inner.seek(to)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}
