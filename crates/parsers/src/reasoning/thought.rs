//! The chain of thought on its way out: without the whitespace at its ends.

use super::Split;

/// Trims a chain of thought as it comes. Whitespace is held back until something follows it, and so is lost at the
/// end, however the text was cut.
#[derive(Debug)]
pub(super) struct Thought {
    held: String,
    leading: bool,
    any: bool,
}

impl Thought {
    pub(super) fn new() -> Self {
        Self { held: String::new(), leading: true, any: false }
    }

    /// A block begins. Blocks after the first are set off by a newline.
    pub(super) fn begin(&mut self) {
        self.leading = true;
        self.held.clear();
        if self.any {
            self.held.push('\n');
        }
    }

    /// More of the block.
    pub(super) fn push(&mut self, text: &str, out: &mut Vec<Split>) {
        let text = if self.leading { text.trim_start() } else { text };
        let body = text.trim_end();
        if body.is_empty() {
            self.held.push_str(text);
            return;
        }
        self.leading = false;
        self.any = true;
        let mut piece = std::mem::take(&mut self.held);
        piece.push_str(body);
        out.push(Split::Reasoning(piece));
        self.held.push_str(text.get(body.len()..).unwrap_or_default());
    }
}
