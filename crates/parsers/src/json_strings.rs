//! Where JSON text is inside a string, so that a marker there is known as data.

/// Follows JSON text byte by byte.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JsonStrings {
    inside: bool,
    escaped: bool,
}

impl JsonStrings {
    /// Goes on by one byte.
    pub(crate) fn step(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.inside => self.escaped = true,
            b'"' => self.inside = !self.inside,
            _ => {}
        }
    }

    /// Whether the next byte stands inside a string.
    pub(crate) fn inside(self) -> bool {
        self.inside
    }
}
