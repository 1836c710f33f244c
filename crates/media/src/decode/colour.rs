//! Any pixels to RGB of 8 bits.

use image::ColorType;

/// `pixels` of `colour` as RGB. Transparent ones are laid on white.
///
/// # Panics
/// For colours with 32-bit floats: no decoder is asked for those.
pub(crate) fn to_rgb(colour: ColorType, mut pixels: Vec<u8>) -> Vec<u8> {
    match colour {
        ColorType::Rgb8 => pixels,
        ColorType::L8 => pixels.iter().flat_map(|&gray| [gray; 3]).collect(),
        ColorType::La8 => pixels.chunks_exact(2).flat_map(|pixel| [on_white(pixel[0], pixel[1]); 3]).collect(),
        ColorType::Rgba8 => {
            // In place: what is written is always behind what is read.
            let count = pixels.len() / 4;
            for i in 0..count {
                let [r, g, b, a] = [pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2], pixels[4 * i + 3]];
                let rgb = if a == 255 { [r, g, b] } else { [r, g, b].map(|value| on_white(value, a)) };
                pixels[3 * i..3 * i + 3].copy_from_slice(&rgb);
            }
            pixels.truncate(3 * count);
            pixels
        }
        ColorType::L16 => to_rgb(ColorType::L8, upper(pixels)),
        ColorType::La16 => to_rgb(ColorType::La8, upper(pixels)),
        ColorType::Rgb16 => to_rgb(ColorType::Rgb8, upper(pixels)),
        ColorType::Rgba16 => to_rgb(ColorType::Rgba8, upper(pixels)),
        other => unreachable!("pixels of {other:?}"),
    }
}

/// The upper 8 bits of numbers of 16, which stand in this machine's order.
fn upper(mut pixels: Vec<u8>) -> Vec<u8> {
    let count = pixels.len() / 2;
    for i in 0..count {
        pixels[i] = u16::from_ne_bytes([pixels[2 * i], pixels[2 * i + 1]]).to_be_bytes()[0];
    }
    pixels.truncate(count);
    pixels
}

/// A value of this opacity laid on white, rounded to the nearest.
fn on_white(value: u8, alpha: u8) -> u8 {
    let sum = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
    // At most 255: a mean of two numbers that are.
    u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_rgb() {
        let wide = |values: &[u16]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
        let cases: [(ColorType, Vec<u8>, &[u8]); 9] = [
            (ColorType::Rgb8, vec![1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]),
            (ColorType::L8, vec![7, 8], &[7, 7, 7, 8, 8, 8]),
            (ColorType::La8, vec![7, 255, 7, 0], &[7, 7, 7, 255, 255, 255]),
            (ColorType::Rgba8, vec![1, 2, 3, 255, 9, 9, 9, 0], &[1, 2, 3, 255, 255, 255]),
            (ColorType::Rgba8, vec![0, 100, 200, 128], &[127, 177, 227]),
            (ColorType::L16, wide(&[0x12ff]), &[0x12; 3]),
            (ColorType::La16, wide(&[0x1200, 0xffff]), &[0x12; 3]),
            (ColorType::Rgb16, wide(&[0x0180, 0x0200, 0xffff]), &[1, 2, 255]),
            (ColorType::Rgba16, wide(&[0x0180, 0x0200, 0x0300, 0]), &[255, 255, 255]),
        ];
        for (colour, pixels, rgb) in cases {
            assert_eq!(to_rgb(colour, pixels.clone()), rgb, "{colour:?} {pixels:?}");
        }
    }
}
