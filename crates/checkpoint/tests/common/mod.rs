//! What several of this crate's tests need. Each test binary uses some of it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use vllm_checkpoint::{Checkpoint, DenseTensor, Dtype, QuantMode, QuantizedTensor, TensorData};

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&fixture(name)).unwrap_or_else(|e| panic!("{e}"))
}

/// The f32 tensors of a safetensors fixture.
pub fn expected(name: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |data: &[u8]| data.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    file.tensors().into_iter().map(|(name, t)| (name, (t.shape().to_vec(), floats(t.data())))).collect()
}

/// Numbers of a dense tensor as f32.
pub fn floats(tensor: &DenseTensor<'_>) -> Vec<f32> {
    let wide = |x: &[u8]| match tensor.dtype {
        Dtype::F32 => f32::from_le_bytes(x.try_into().unwrap()),
        Dtype::F16 => f16::from_le_bytes(x.try_into().unwrap()).to_f32(),
        Dtype::Bf16 => bf16::from_le_bytes(x.try_into().unwrap()).to_f32(),
        other => panic!("{other} is not a float"),
    };
    tensor.bytes.chunks_exact(tensor.dtype.size()).map(wide).collect()
}

/// `scale · code + bias` with the codes as `QuantizedTensor` documents them: bit by bit.
pub fn dequantize(tensor: &QuantizedTensor<'_>) -> Vec<f32> {
    assert_eq!(tensor.mode, QuantMode::Affine);
    let (scales, biases) = (floats(&tensor.scales), floats(tensor.biases.as_ref().expect("affine has biases")));
    let bits = usize::from(tensor.bits);
    (0..tensor.shape.iter().product::<usize>())
        .map(|i| {
            let code: u32 = (0..bits)
                .map(|b| u32::from(tensor.packed.bytes[(i * bits + b) / 8] >> ((i * bits + b) % 8) & 1) << b)
                .sum();
            scales[i / tensor.group_size] * code as f32 + biases[i / tensor.group_size]
        })
        .collect()
}

/// Numbers of any float tensor.
pub fn numbers(tensor: &TensorData<'_>) -> Vec<f32> {
    match tensor {
        TensorData::Dense(tensor) => floats(tensor),
        TensorData::Quantized(tensor) => dequantize(tensor),
    }
}

/// SHA-256, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a safetensors file with these tensors: name, element type as the header writes it, shape, bytes.
pub fn safetensors_bytes(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}
