//! Where bytes come from.

use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

/// Bytes with a known end.
pub(super) struct Source {
    inner: Box<dyn Bytes>,
    length: u64,
}

trait Bytes: Read + Seek + Send + Sync {}

impl<T: Read + Seek + Send + Sync> Bytes for T {}

impl Source {
    /// All of `inner`, from its beginning.
    pub fn new(mut inner: impl Read + Seek + Send + Sync + 'static) -> io::Result<Self> {
        let length = inner.seek(SeekFrom::End(0))?;
        inner.rewind()?;
        Ok(Self { inner: Box::new(inner), length })
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
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
