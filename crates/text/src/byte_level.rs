//! The byte alphabet of byte-level BPE: every byte is written as one printable character.
//!
//! Source: Radford et al. 2019 (GPT-2). Printable Latin-1 bytes stand for themselves; the 68 others (controls, space,
//! 0x7F–0xA0, 0xAD) are written as U+0100, U+0101, … in order of their value.

/// Number of bytes that have no printable character of their own.
const SHIFTED: u32 = 68;

/// Whether `byte` stands for itself in the alphabet.
const fn is_own_character(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// Decodes characters of the byte-level alphabet.
#[derive(Debug, Clone)]
pub(crate) struct ByteAlphabet {
    /// Byte of each character below U+0100 + 68; `None` for characters outside the alphabet (as a plain space).
    byte_of: [Option<u8>; 0x100 + SHIFTED as usize],
}

impl ByteAlphabet {
    pub(crate) fn new() -> Self {
        let mut byte_of = [None; 0x100 + SHIFTED as usize];
        let mut shifted = 0x100;
        for byte in 0..=u8::MAX {
            if is_own_character(byte) {
                byte_of[usize::from(byte)] = Some(byte);
            } else {
                byte_of[shifted] = Some(byte);
                shifted += 1;
            }
        }
        Self { byte_of }
    }

    /// The byte written as `character`, if it belongs to the alphabet.
    pub(crate) fn byte(&self, character: char) -> Option<u8> {
        self.byte_of.get(character as usize).copied().flatten()
    }

    /// Appends the bytes that `piece` stands for. A piece with a character outside the alphabet stands for its own UTF-8.
    pub(crate) fn decode_into(&self, piece: &str, out: &mut Vec<u8>) {
        let start = out.len();
        for character in piece.chars() {
            match self.byte(character) {
                Some(byte) => out.push(byte),
                None => {
                    out.truncate(start);
                    out.extend_from_slice(piece.as_bytes());
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_exactly_one_character() {
        let alphabet = ByteAlphabet::new();
        let mut seen: Vec<u8> = alphabet.byte_of.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=u8::MAX).collect::<Vec<_>>());
    }

    #[test]
    fn decodes_pieces() {
        let cases: &[(&str, &str, &[u8])] = &[
            ("plain", "abc", b"abc"),
            ("space", "Ġhi", b" hi"),
            ("newline", "Ċ", b"\n"),
            ("half a character", "æĹ", &[0xE6, 0x97]),
            ("a character outside the alphabet: the piece as it is", "a b", b"a b"),
            ("CJK added token", "日é", "日é".as_bytes()),
        ];
        let alphabet = ByteAlphabet::new();
        for (name, piece, expected) in cases {
            let mut out = b"x".to_vec();
            alphabet.decode_into(piece, &mut out);
            assert_eq!(&out[1..], *expected, "{name}");
        }
    }
}
