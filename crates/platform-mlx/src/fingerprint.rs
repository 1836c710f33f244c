//! A name for everything that stored keys and values, or features, depend on.

use mlx_rs::Dtype;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vllm_checkpoint::{DenseTensor, TensorData};

use crate::{
    Ops, Result,
    load::{Loading, View},
};

/// Of a tensor's bytes, so many pieces are looked at, evenly spread, first and last included …
const PIECES: usize = 4;
/// … each of so many bytes.
const PIECE: usize = 512;

/// SHA-256, in hexadecimal, over configuration, weights, and how keys and values are computed and laid out.
///
/// Of the weights only a part is read (names, shapes, and [`PIECES`] pieces of each array): enough to tell one training
/// run from another in a few milliseconds.
///
/// `stored` says what is stored and how.
pub(crate) fn fingerprint(loading: &Loading<'_>, stored: &str, ops: &Ops, dtype: Dtype) -> String {
    let mut hash = Fields(Sha256::new());
    hash.text("vllm-mlx kv 2");
    hash.text(&canonical(loading.config()));
    for (name, digest) in &*loading.digests() {
        hash.text(name);
        hash.bytes(digest);
    }
    hash.text(stored);
    hash.text(&format!("activations {dtype:?}"));
    // Vector widths decide in which order a kernel adds.
    let kernels = ops.threads().map(|(pool, _)| format!("{:?} {:?} panels", pool.isa(), pool.activations()));
    hash.text(&kernels.unwrap_or_else(|| loading.device().to_string()));
    hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256, in hexadecimal, over configuration and weights alone: whether two machines have the same model.
pub(crate) fn outline_fingerprint(view: &View<'_>) -> Result<String> {
    let mut hash = Fields(Sha256::new());
    hash.text("vllm-mlx model 1");
    hash.text(&canonical(&view.config));
    for name in view.names() {
        hash.text(name);
        hash.bytes(&tensor_digest(&view.tensor(name)?));
        view.release(name);
    }
    Ok(hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Digest of a tensor: form, shape and samples of its content.
pub(crate) fn tensor_digest(tensor: &TensorData<'_>) -> [u8; 32] {
    let mut hash = Fields(Sha256::new());
    match tensor {
        TensorData::Dense(dense) => hash.array(dense),
        TensorData::Quantized(quantized) => {
            hash.text(&format!("{:?} {} {}", quantized.mode, quantized.bits, quantized.group_size));
            [Some(&quantized.packed), Some(&quantized.scales), quantized.biases.as_ref()]
                .into_iter()
                .flatten()
                .for_each(|part| hash.array(part));
        }
    }
    hash.0.finalize().into()
}

/// Fields one after the other, each behind its length, so that none runs into the next.
struct Fields(Sha256);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn array(&mut self, tensor: &DenseTensor<'_>) {
        self.text(&format!("{} {:?}", tensor.dtype, tensor.shape));
        let bytes = &tensor.bytes;
        if bytes.len() <= PIECES * PIECE {
            return self.bytes(bytes);
        }
        let last = bytes.len() - PIECE;
        for piece in 0..PIECES {
            let start = last / (PIECES - 1) * piece;
            let start = if piece + 1 == PIECES { last } else { start };
            self.bytes(&bytes[start..start + PIECE]);
        }
    }
}

/// JSON with the keys of objects in order.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries =
                entries.into_iter().map(|(key, value)| format!("{}:{}", Value::from(&**key), canonical(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter_and_that_of_items_does() {
        let parse = |text| canonical(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(parse(r#"{"b": [1, {"d": 2, "c": "\n"}], "a": null}"#), r#"{"a":null,"b":[1,{"c":"\n","d":2}]}"#);
        assert_ne!(parse("[1, 2]"), parse("[2, 1]"));
    }

    #[test]
    fn a_tensor_is_told_by_its_ends_its_shape_and_its_type() {
        use std::borrow::Cow;
        use vllm_checkpoint::Dtype;
        let bytes: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        let digest = |dtype, shape: &[usize], bytes: &[u8]| {
            tensor_digest(&TensorData::Dense(DenseTensor::new(dtype, shape.to_vec(), Cow::Borrowed(bytes))))
        };
        let plain = digest(Dtype::F16, &[200, 100], &bytes);
        assert_eq!(plain, digest(Dtype::F16, &[200, 100], &bytes));
        assert_ne!(plain, digest(Dtype::F16, &[100, 200], &bytes));
        assert_ne!(plain, digest(Dtype::Bf16, &[200, 100], &bytes));
        for at in [0, 13_162, 39_999] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(plain, digest(Dtype::F16, &[200, 100], &other), "byte {at}");
        }
    }
}
