//! A fixture with something changed.

use std::{collections::BTreeMap, fs};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// A copy of a fixture, to be edited and written.
pub struct Edited {
    pub config: Value,
    /// Name → type, shape and bytes.
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Edited {
    pub fn of(name: &str) -> Self {
        let from = super::fixture(name);
        let bytes = fs::read(from.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes)
            .unwrap()
            .iter()
            .map(|(name, t)| (name.into(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
            .collect();
        Self { config: serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap(), tensors }
    }

    /// A tensor's shape.
    pub fn shape(&mut self, name: &str) -> &mut Vec<usize> {
        &mut self.tensors.get_mut(name).unwrap_or_else(|| panic!("no tensor {name}")).1
    }

    /// Another tensor like `like`.
    pub fn add(&mut self, name: &str, like: &str) {
        let tensor = self.tensors[like].clone();
        self.tensors.insert(name.into(), tensor);
    }

    pub fn remove(&mut self, name: &str) {
        self.tensors.remove(name).unwrap_or_else(|| panic!("no tensor {name}"));
    }

    /// Drops a key of `config.json`.
    pub fn forget(&mut self, key: &str) {
        self.config.as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("no key {key}"));
    }

    pub fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
        dir
    }
}
