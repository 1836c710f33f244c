//! Samples of telephones: eight bits, finer the quieter (ITU-T G.711).

/// Which of the two curves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// North America's and Japan's.
    Mu,
    /// Elsewhere's.
    A,
}

/// What µ-law adds, so that each segment begins at a power of two, of samples of 16 bits.
const BIAS: i32 = 132;

/// A sample of 16 bits, cut where it is too loud.
pub fn pcm16(sample: f32) -> i16 {
    // `as` cuts at the ends.
    (sample * 32_768.0).round() as i16
}

/// A byte's sample, within −1 to 1.
pub fn decode(law: Law, byte: u8) -> f32 {
    let (negative, magnitude) = match law {
        Law::Mu => {
            let byte = !byte;
            let (segment, step) = (i32::from(byte >> 4 & 7), i32::from(byte & 15));
            (byte & 0x80 != 0, ((step * 8 + BIAS) << segment) - BIAS)
        }
        Law::A => {
            let byte = byte ^ 0x55;
            let (segment, step) = (i32::from(byte >> 4 & 7), i32::from(byte & 15));
            let magnitude = match segment {
                0 => step * 16 + 8,
                _ => (step * 16 + 264) << (segment - 1),
            };
            (byte & 0x80 == 0, magnitude)
        }
    };
    let magnitude = magnitude as f32 / 32_768.0;
    if negative { -magnitude } else { magnitude }
}

/// The byte of a sample, cut where it is too loud.
pub fn encode(law: Law, sample: f32) -> u8 {
    let sample = i32::from(pcm16(sample));
    let negative = sample < 0;
    match law {
        Law::Mu => {
            let magnitude = (sample.abs() + BIAS).min(32_767);
            let segment = magnitude.ilog2() - 7;
            let step = magnitude >> (segment + 3) & 15;
            !(u8::from(negative) << 7 | (segment << 4) as u8 | step as u8)
        }
        Law::A => {
            let magnitude = if negative { !sample } else { sample };
            let segment = (magnitude >> 7).checked_ilog2().unwrap_or(0);
            let step = magnitude >> (if segment == 0 { 4 } else { segment + 3 }) & 15;
            (u8::from(!negative) << 7 | (segment << 4) as u8 | step as u8) ^ 0x55
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        for law in [Law::Mu, Law::A] {
            for byte in 0..=u8::MAX {
                let back = encode(law, decode(law, byte));
                // µ-law has two zeros.
                assert!(back == byte || decode(law, byte) == 0.0, "{law:?}: {byte:#x} became {back:#x}");
            }
        }
    }

    #[test]
    fn samples_as_the_standard_has_them() {
        // Of 16 bits, as tables of G.711 give them.
        for (law, byte, sample) in [
            (Law::Mu, 0xff, 0),
            (Law::Mu, 0x00, -32_124),
            (Law::Mu, 0x80, 32_124),
            (Law::Mu, 0xfe, 8),
            (Law::A, 0xd5, 8),
            (Law::A, 0x55, -8),
            (Law::A, 0xaa, 32_256),
            (Law::A, 0x2a, -32_256),
        ] {
            assert_eq!((decode(law, byte) * 32_768.0) as i32, sample, "{law:?} {byte:#x}");
        }
    }
}
