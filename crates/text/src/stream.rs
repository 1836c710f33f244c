//! The text side of one answer: detokenizer and stop strings together.

use crate::detokenizer::Detokenizer;
use crate::stop_strings::StopStrings;

/// What one token added to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// New text, whole characters only; often empty.
    pub text: String,
    /// The stop string that ended the answer with this token. Nothing follows it.
    pub stopped: Option<String>,
}

/// Text of an answer as its tokens come in.
#[derive(Debug, Clone)]
pub struct TextStream {
    detokenizer: Detokenizer,
    stop: StopStrings,
    stopped: bool,
}

impl TextStream {
    /// Joins a detokenizer and the stop strings of a request.
    pub fn new(detokenizer: Detokenizer, stop: StopStrings) -> Self {
        Self { detokenizer, stop, stopped: false }
    }

    /// Adds a token. After a stop string was found, further tokens give nothing.
    pub fn push(&mut self, token: u32) -> Delta {
        if self.stopped {
            return Delta::default();
        }
        let (text, stopped) = self.stop.push(self.detokenizer.push(token));
        self.stopped = stopped.is_some();
        Delta { text, stopped }
    }

    /// Ends the answer: what was held back (an unfinished character as U+FFFD, the beginning of a stop string).
    ///
    /// The unfinished character itself can complete no stop string but one that contains U+FFFD; that is honoured too.
    pub fn finish(&mut self) -> Delta {
        if self.stopped {
            return Delta::default();
        }
        let (mut text, stopped) = self.stop.push(self.detokenizer.finish());
        self.stopped = true;
        text.push_str(&self.stop.finish());
        Delta { text, stopped }
    }
}
