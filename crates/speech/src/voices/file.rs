//! Files of voices: `*.safetensors` with one tensor, as in mlx-community's repositories; `*.bin`, bare f32, as npm's kokoro-js has them;
//! `*.npy` of f32.

use std::{fs, path::Path};

use safetensors::{Dtype, SafeTensors};

use super::VoiceError;

/// What is read, by how names end.
pub const KINDS: [&str; 3] = ["bin", "npy", "safetensors"];
/// Nobody's voice is as large; Kokoro's are half a megabyte.
const MOST_BYTES: u64 = 64 << 20;

/// The styles of a file: [rows, style], all finite.
pub fn read(path: &Path, style_len: usize) -> Result<Vec<f32>, VoiceError> {
    let wrong = |why: String| VoiceError::File { path: path.to_path_buf(), why };
    let found = fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if found.len() > MOST_BYTES {
        return Err(wrong(format!("{} bytes are too many for a voice", found.len())));
    }
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let styles = match path.extension().and_then(|kind| kind.to_str()) {
        Some("safetensors") => tensor(&bytes),
        Some("npy") => array(&bytes),
        _ => floats(&bytes),
    };
    let styles = styles.map_err(wrong)?;
    if styles.is_empty() || !styles.len().is_multiple_of(style_len) {
        return Err(wrong(format!("{} numbers, wanted a multiple of the model's {style_len}", styles.len())));
    }
    if styles.iter().any(|number| !number.is_finite()) {
        return Err(wrong("numbers that are not finite".into()));
    }
    Ok(styles)
}

fn floats(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let (numbers, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no whole number of f32", bytes.len()));
    }
    Ok(numbers.iter().map(|&number| f32::from_le_bytes(number)).collect())
}

/// The tensor `voice`; or the only one, whatever its name.
fn tensor(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let tensor = match (file.tensor("voice"), &file.names()[..]) {
        (Ok(tensor), _) => tensor,
        (Err(_), [only]) => file.tensor(only).map_err(|error| error.to_string())?,
        (Err(_), names) => return Err(format!("no tensor \"voice\" among {} tensors", names.len())),
    };
    let data = tensor.data();
    let halves = |widen: fn([u8; 2]) -> f32| data.as_chunks().0.iter().map(|&half| widen(half)).collect();
    match tensor.dtype() {
        Dtype::F32 => floats(data),
        Dtype::F16 => Ok(halves(|half| half::f16::from_le_bytes(half).to_f32())),
        Dtype::BF16 => Ok(halves(|half| half::bf16::from_le_bytes(half).to_f32())),
        other => Err(format!("the tensor is of {other:?}, wanted F32, F16 or BF16")),
    }
}

/// NumPy's format: a magic word, a version, the length of a header, a header like a Python dictionary, the numbers.
fn array(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let cut = || "it ends too early".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it is no NumPy array")?;
    let (header_len, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err(cut()),
    };
    let (header, numbers) = rest.split_at_checked(header_len).ok_or_else(cut)?;
    let header = String::from_utf8_lossy(header).replace(' ', "");
    if !header.contains("'descr':'<f4'") || !header.contains("'fortran_order':False") {
        return Err("the array is not of little-endian f32 in C's order".into());
    }
    floats(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safetensors(names: &[&str], dtype: &str, data: &[u8]) -> Vec<u8> {
        let size = if dtype == "F32" { 4 } else { 2 };
        let entries: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    r#""{name}":{{"dtype":"{dtype}","shape":[{}],"data_offsets":[0,{}]}}"#,
                    data.len() / size,
                    data.len()
                )
            })
            .collect();
        let header = format!("{{{}}}", entries.join(","));
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    const ONE_TWO: [u8; 8] = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40];
    const NPY: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";

    #[test]
    fn every_kind_is_read() {
        let cases = [
            ("bare", "v.bin", ONE_TWO.to_vec()),
            ("safetensors", "v.safetensors", safetensors(&["voice"], "F32", &ONE_TWO)),
            ("another name", "v.safetensors", safetensors(&["pack"], "F32", &ONE_TWO)),
            ("f16", "v.safetensors", safetensors(&["voice"], "F16", &[0, 0x3c, 0, 0x40])),
            ("bf16", "v.safetensors", safetensors(&["voice"], "BF16", &[0x80, 0x3f, 0, 0x40])),
            ("NumPy", "v.npy", npy(NPY, &ONE_TWO)),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (case, name, bytes) in cases {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path, 2).unwrap(), [1.0, 2.0], "{case}");
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let cases = [
            ("empty", "v.bin", vec![], "multiple"),
            ("half a number", "v.bin", vec![0; 6], "whole number"),
            ("not finite", "v.bin", [f32::NAN.to_le_bytes(), [0; 4]].concat(), "finite"),
            ("other kind", "v.safetensors", b"PK\x03\x04".to_vec(), "header"),
            ("big numbers", "v.npy", npy(&NPY.replace("f4", "f8"), &[0; 16]), "f32"),
            ("cut short", "v.npy", b"\x93NUMPY\x01\0\xff\xff".to_vec(), "early"),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (case, name, bytes, said) in cases {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = read(&path, 2).unwrap_err().to_string();
            assert!(error.to_lowercase().contains(said), "{case}: {error}");
        }
    }
}
