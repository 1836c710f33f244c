//! The part of a checkpoint that is loaded.

use std::collections::BTreeMap;

use serde_json::Value;
use vllm_checkpoint::{Checkpoint, TensorData};

use crate::Result;

/// A checkpoint, or the language part or the vision part of one, under the names that a checkpoint of its own would have.
pub(crate) struct View<'a> {
    checkpoint: &'a Checkpoint,
    /// `config.json`, or what of it is the part's.
    pub config: Value,
    /// As in `config.json`'s `architectures`, or what is to be taken for it.
    pub architecture: String,
    /// Levels of the features that stand in for tokens of a language part; 0 where there are none.
    pub media_levels: usize,
    /// The file's names by the part's.
    names: BTreeMap<String, String>,
    /// Bytes of the rest in the file.
    pub left_bytes: u64,
}

impl<'a> View<'a> {
    /// All of it.
    ///
    /// # Errors
    /// If its files don't say of which architecture it is.
    pub fn whole(checkpoint: &'a Checkpoint) -> Result<Self> {
        Ok(Self {
            checkpoint,
            config: checkpoint.config().clone(),
            architecture: checkpoint.architecture()?.into(),
            media_levels: 0,
            names: checkpoint.tensor_names().map(|name| (name.into(), name.into())).collect(),
            left_bytes: 0,
        })
    }

    /// The tensors that `rename` gives a name in the part.
    ///
    /// # Errors
    /// If a tensor of the rest has a form that isn't known.
    pub fn part(
        checkpoint: &'a Checkpoint,
        config: Value,
        architecture: String,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let (mut names, mut left_bytes) = (BTreeMap::new(), 0);
        for name in checkpoint.tensor_names() {
            match rename(name) {
                Some(renamed) => drop(names.insert(renamed, name.to_owned())),
                None => left_bytes += bytes(&checkpoint.tensor(name)?),
            }
        }
        Ok(Self { checkpoint, config, architecture, media_levels: 0, names, left_bytes })
    }

    /// As the language part of a model whose features have so many levels.
    pub fn with_media_levels(self, media_levels: usize) -> Self {
        Self { media_levels, ..self }
    }

    /// Names of its tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether it has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// A tensor.
    ///
    /// # Errors
    /// If it is missing or its form isn't known.
    pub fn tensor(&self, name: &str) -> Result<TensorData<'a>> {
        Ok(self.checkpoint.tensor(self.in_file(name))?)
    }

    /// Bytes of a tensor in the file.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn bytes(&self, name: &str) -> Result<u64> {
        Ok(bytes(&self.tensor(name)?))
    }

    /// Says that a tensor's pages in the file are needed no longer.
    pub fn release(&self, name: &str) {
        self.checkpoint.release(self.in_file(name));
    }

    fn in_file<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

fn bytes(tensor: &TensorData<'_>) -> u64 {
    let bytes = match tensor {
        TensorData::Dense(dense) => dense.bytes.len(),
        TensorData::Quantized(q) => {
            q.packed.bytes.len() + q.scales.bytes.len() + q.biases.as_ref().map_or(0, |biases| biases.bytes.len())
        }
    };
    bytes as u64
}
