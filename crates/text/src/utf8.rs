//! UTF-8 that arrives in pieces.

/// Joins byte slices into text without ever giving out half a character.
///
/// The concatenation of everything given out equals `String::from_utf8_lossy` of the concatenated input: a sequence that
/// can no longer become valid turns into U+FFFD at once, one that still can waits (at most three bytes).
#[derive(Debug, Clone, Default)]
pub(crate) struct Utf8Assembler {
    pending: Vec<u8>,
}

impl Utf8Assembler {
    /// Takes `bytes` and appends to `out` all text that is certain by now.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.pending.is_empty() {
            // The usual case: whole characters, copied once.
            if let Some(rest) = drain_valid(bytes, out) {
                self.pending.extend_from_slice(rest);
            }
            return;
        }
        self.pending.extend_from_slice(bytes);
        let rest = drain_valid(&self.pending, out).map_or(0, <[u8]>::len);
        self.pending.drain(..self.pending.len() - rest);
    }

    /// Ends the text: an unfinished character becomes U+FFFD.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Appends the text of `bytes` and returns the unfinished character at its end, if there is one.
fn drain_valid<'a>(mut bytes: &'a [u8], out: &mut String) -> Option<&'a [u8]> {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return None;
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                // Valid by the error's own word; lossy conversion of valid text borrows it.
                out.push_str(&String::from_utf8_lossy(valid));
                let Some(invalid) = error.error_len() else {
                    return Some(rest);
                };
                out.push(char::REPLACEMENT_CHARACTER);
                bytes = &rest[invalid..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, String) {
        let mut assembler = Utf8Assembler::default();
        let steps = pieces
            .into_iter()
            .map(|piece| {
                let mut out = String::new();
                assembler.push(piece, &mut out);
                out
            })
            .collect();
        let mut last = String::new();
        assembler.finish(&mut last);
        (steps, last)
    }

    #[test]
    fn characters_wait_until_they_are_whole() {
        type Case = (&'static str, &'static [&'static [u8]], &'static [&'static str], &'static str);
        let cases: &[Case] = &[
            ("ascii", &[b"a", b"b"], &["a", "b"], ""),
            ("two halves", &[b"\xC3", b"\xA9"], &["", "é"], ""),
            ("four quarters", &[b"\xF0", b"\x9F", b"\x98", b"\x80!"], &["", "", "", "😀!"], ""),
            ("unfinished at the end", &[b"a\xE2\x82"], &["a"], "\u{FFFD}"),
            ("cannot become valid", &[b"\xE2", b"a"], &["", "\u{FFFD}a"], ""),
            ("lone continuation", &[b"\x80x"], &["\u{FFFD}x"], ""),
            ("overlong start", &[b"\xC0", b"\xAF"], &["\u{FFFD}", "\u{FFFD}"], ""),
        ];
        for (name, pieces, steps, last) in cases {
            let (got_steps, got_last) = in_pieces(pieces.iter().copied());
            assert_eq!(
                (got_steps.iter().map(String::as_str).collect::<Vec<_>>(), got_last.as_str()),
                (steps.to_vec(), *last),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_split_equals_lossy_decoding(bytes in byte_soup(), cut in 1_usize..5) {
            let (steps, last) = in_pieces(bytes.chunks(cut));
            prop_assert_eq!(steps.concat() + &last, String::from_utf8_lossy(&bytes));
        }
    }

    /// Random bytes, weighted towards what UTF-8 is made of.
    fn byte_soup() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![any::<u8>(), 0x80..=0xBF_u8, 0xC2..=0xF4_u8, Just(b'a'), Just(0xE2), Just(0x82)],
            0..64,
        )
    }
}
