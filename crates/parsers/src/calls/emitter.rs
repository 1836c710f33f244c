//! The way out of a call parser.

use crate::OutputEvent;

/// Collects events, and knows what must not go out yet.
///
/// *White space* around calls separates them from the text; it is no part of the answer. So white space waits until
/// text follows: behind a call and at the end it is dropped, between two parts of the text it is kept.
///
/// *Markup* waits until it is certain to be a call's. From [`begin`](Self::begin) on, the scanner notes what is read;
/// [`call`](Self::call) and [`forget`](Self::forget) make it markup, [`roll_back`](Self::roll_back) makes it text.
#[derive(Debug, Default)]
pub(crate) struct Emitter {
    events: Vec<OutputEvent>,
    /// White space that has not gone out.
    gap: String,
    /// What was read and is not certain yet.
    noted: Option<String>,
    /// Where in it a tag begins that may turn out to be none of the block's.
    tag: Option<usize>,
    /// Whether any text but white space went out.
    wrote: bool,
    /// Whether nothing but white space came since a call.
    after_call: bool,
    calls: usize,
}

impl Emitter {
    /// More text for the user.
    pub fn text(&mut self, text: &str) {
        let body = text.trim_end();
        let tail = text.get(body.len()..).unwrap_or_default();
        if body.is_empty() {
            self.gap.push_str(tail);
            return;
        }
        if self.after_call && !self.wrote {
            self.gap.clear();
            self.append_text(body.trim_start());
        } else {
            let gap = std::mem::take(&mut self.gap);
            self.append_text(&gap);
            self.append_text(body);
        }
        self.gap.push_str(tail);
        self.wrote = true;
        self.after_call = false;
    }

    /// A call begins. What was noted was its markup.
    pub fn call(&mut self, name: String, id: Option<String>) {
        self.forget();
        self.after_call = true;
        self.calls += 1;
        self.events.push(OutputEvent::Call { name, id });
    }

    /// More of the latest call's arguments.
    pub fn arguments(&mut self, json: &str) {
        match self.events.last_mut() {
            _ if json.is_empty() => {}
            Some(OutputEvent::Arguments(last)) => last.push_str(json),
            _ => self.events.push(OutputEvent::Arguments(json.to_owned())),
        }
    }

    /// From here on, what is read is not certain; `read` already was. Goes on if something is uncertain already.
    pub fn begin(&mut self, read: &str) {
        self.noted.get_or_insert_default().push_str(read);
    }

    /// The next character begins a tag. If the block refuses to go on inside of it, the tag is read again.
    pub fn begin_tag(&mut self) {
        self.tag = Some(self.noted.get_or_insert_default().len());
    }

    /// The tag belongs to the block.
    pub fn end_tag(&mut self) {
        self.tag = None;
    }

    /// A character was read: noted if it is not certain.
    pub fn note(&mut self, c: char) {
        if let Some(noted) = &mut self.noted {
            noted.push(c);
        }
    }

    /// What was read and is not certain yet.
    pub fn noted(&self) -> Option<&str> {
        self.noted.as_deref()
    }

    /// What was noted is markup and goes nowhere.
    pub fn forget(&mut self) {
        self.noted = None;
        self.tag = None;
    }

    /// What was noted is text. Returns the tag that must be read again.
    pub fn roll_back(&mut self) -> String {
        let mut noted = self.noted.take().unwrap_or_default();
        let tag = self.tag.take().map(|tag| noted.split_off(tag)).unwrap_or_default();
        self.text(&noted);
        tag
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// What went out since the last time.
    pub fn drain(&mut self, out: &mut Vec<OutputEvent>) {
        out.append(&mut self.events);
    }

    /// The answer is over.
    pub fn finish(&mut self, out: &mut Vec<OutputEvent>) {
        self.end_tag();
        self.roll_back();
        if !self.after_call {
            let gap = std::mem::take(&mut self.gap);
            self.append_text(&gap);
        }
        self.drain(out);
    }

    fn append_text(&mut self, text: &str) {
        match self.events.last_mut() {
            _ if text.is_empty() => {}
            Some(OutputEvent::Text(last)) => last.push_str(text),
            _ => self.events.push(OutputEvent::Text(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(act: impl FnOnce(&mut Emitter)) -> String {
        let (mut emitter, mut out) = (Emitter::default(), Vec::new());
        act(&mut emitter);
        emitter.finish(&mut out);
        out.iter()
            .map(|event| match event {
                OutputEvent::Text(text) => text.as_str(),
                OutputEvent::Call { .. } => "|",
                _ => "?",
            })
            .collect()
    }

    #[test]
    fn white_space_around_calls_is_dropped_and_between_texts_kept() {
        let call = |emitter: &mut Emitter| emitter.call("f".to_owned(), None);
        assert_eq!(texts(|emitter| emitter.text(" a \n")), " a \n");
        assert_eq!(
            texts(|emitter| {
                emitter.text("a\n");
                call(emitter);
                emitter.text("\n");
                call(emitter);
                emitter.text("\n");
            }),
            "a||"
        );
        assert_eq!(
            texts(|emitter| {
                emitter.text("\na\n\n");
                call(emitter);
                emitter.text("b ");
            }),
            "\na|\n\nb "
        );
        assert_eq!(
            texts(|emitter| {
                emitter.text("\n");
                call(emitter);
                emitter.text("\n b");
            }),
            "|b"
        );
    }

    #[test]
    fn what_is_uncertain_becomes_text_or_nothing() {
        let note = |emitter: &mut Emitter| {
            emitter.begin("<");
            "ab".chars().for_each(|c| emitter.note(c));
        };
        assert_eq!(
            texts(|emitter| {
                note(emitter);
                emitter.roll_back();
                emitter.note('c');
            }),
            "<ab"
        );
        assert_eq!(
            texts(|emitter| {
                note(emitter);
                emitter.forget();
            }),
            ""
        );
        assert_eq!(
            texts(|emitter| {
                note(emitter);
                emitter.call("f".to_owned(), None);
            }),
            "|"
        );
        assert_eq!(texts(note), "<ab");
    }
}
