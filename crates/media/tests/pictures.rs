//! Pictures of every format, beside what Pillow sees in them (`fixtures/make.py`).

mod fixtures;

use fixtures::{Expected, compare, folder};
use vllm_media::{Limits, decode_picture};

/// How far pixels may be from Pillow's: at most, and on average.
///
/// Decoders of JPEG may differ in how they round and interpolate: libjpeg-turbo's and zune-jpeg's cosine transforms and their
/// filters for chroma of half the size are not the same to the last bit. (In pictures of pure noise we saw 5 levels, and 0.37 on
/// average.) The rest is exact, but for CMYK in TIFF, of which the `image` crate cuts the fractions off.
fn tolerance(name: &str) -> (u8, f64) {
    match name {
        _ if name.ends_with(".jpg") => (3, 0.5),
        "cmyk.tiff" => (1, 1.0),
        _ => (0, 0.0),
    }
}

#[test]
fn all_formats_are_as_pillow_sees_them() {
    let mut wrong = vec![];
    let expected = Expected::pictures();
    for (name, wanted) in &expected {
        let bytes = std::fs::read(folder("pictures").join(name)).unwrap();
        match decode_picture(&bytes, &Limits::default()) {
            Ok(picture) => wrong.extend(compare(name, &picture, wanted, tolerance(name))),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(expected.len() > 50, "{} fixtures", expected.len());
}
