//! Server-sent events, of which only the data matters here.

/// Takes bytes as they arrive, gives the data of each event that is complete.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The data lines of the event that has not ended yet.
    data: Option<String>,
    /// The last byte was a carriage return, which a line feed may follow.
    after_return: bool,
}

impl Parser {
    /// The data of the events that end in `bytes`.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for &byte in bytes {
            let second_half = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            match byte {
                _ if second_half => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        events
    }

    /// An empty line ends an event.
    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take();
        }
        let value = line.strip_prefix(b"data:")?;
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &mut self.data {
            None => self.data = Some(value.into_owned()),
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_arrive() {
        let cases: [(&str, &[&str]); 8] = [
            ("data: a\n\ndata: b\n\n", &["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data:a\n\n", &["a"]),
            ("data: a\ndata: b\n\n", &["a\nb"]),
            (": keep-alive\n\nevent: x\nid: 1\ndata: a\n\n", &["a"]),
            ("data: ü\n\n", &["ü"]),
            ("data: cut off\n", &[]),
        ];
        for (text, wanted) in cases {
            for size in [1, 2, 3, text.len()] {
                let mut parser = Parser::default();
                let events: Vec<String> = text.as_bytes().chunks(size).flat_map(|bytes| parser.push(bytes)).collect();
                assert_eq!(events, wanted, "{text:?} by {size}");
            }
        }
    }
}
