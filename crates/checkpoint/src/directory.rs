//! A model folder in Hugging Face's layout: `config.json`, `*.safetensors`, tokenizer files. MLX writes the same layout
//! with quantized weights as triples `X.weight`, `X.scales`, `X.biases`.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{self, Quantization};
use crate::error::{Error, Result};
use crate::safetensors::SafetensorsFile;
use crate::tensor::{DenseTensor, Dtype, QuantMode, QuantParams, QuantizedTensor, Storage, TensorData, TensorSpec};

/// An opened model folder.
#[derive(Debug)]
pub(crate) struct ModelDirectory {
    path: PathBuf,
    config: Value,
    quantization: Quantization,
    files: Vec<SafetensorsFile>,
    /// Physical tensor → its file.
    places: HashMap<String, usize>,
    /// Logical names, sorted.
    names: Vec<String>,
}

impl ModelDirectory {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let config_path = path.join("config.json");
        let config = config::read_object_if_present(&config_path)?.ok_or_else(|| {
            Error::not_a_model(
                path,
                "no config.json; a model folder holds config.json, *.safetensors and tokenizer.json",
            )
        })?;
        let quantization = Quantization::from_config(&config, &config_path)?;
        let mut files = Vec::new();
        let mut places = HashMap::new();
        for file in weight_files(path)? {
            let file = SafetensorsFile::open(&file)?;
            for name in file.names() {
                if let Some(first) = places.insert(name.clone(), files.len()) {
                    let first: &SafetensorsFile = &files[first];
                    let what = format!("tensor {name} is also in {}", first.path().display());
                    return Err(Error::malformed(file.path(), what));
                }
            }
            files.push(file);
        }
        let mut directory = Self { path: path.to_owned(), config, quantization, files, places, names: Vec::new() };
        directory.names = directory.logical_names();
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.path.join("config.json")
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn weight_files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(SafetensorsFile::path)
    }

    pub(crate) fn spec(&self, name: &str) -> Result<TensorSpec> {
        let (dtype, shape, bytes) = self.file_of(name)?.info(name)?;
        let Some((module, params)) = self.quantized_module(name) else {
            return Ok(TensorSpec { shape: shape.to_vec(), storage: Storage::Dense(dtype), file_bytes: bytes as u64 });
        };
        let mut file_bytes = bytes as u64;
        for part in ["scales", "biases"].map(|part| format!("{module}.{part}")) {
            if self.places.contains_key(&part) {
                file_bytes += self.file_of(&part)?.info(&part)?.2 as u64;
            }
        }
        let shape = unpacked_shape(shape, params);
        Ok(TensorSpec { shape, storage: Storage::Quantized(params), file_bytes })
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<TensorData<'_>> {
        let weight = self.dense(name)?;
        match self.quantized_module(name) {
            Some((module, params)) => self.quantized(name, module, weight, params).map(TensorData::Quantized),
            None => Ok(TensorData::Dense(weight)),
        }
    }

    pub(crate) fn release(&self, name: &str) {
        let parts =
            self.quantized_module(name).map(|(module, _)| ["scales", "biases"].map(|p| format!("{module}.{p}")));
        for part in parts.iter().flatten().map(String::as_str).chain([name]) {
            if let Ok(file) = self.file_of(part) {
                file.release(part);
            }
        }
    }

    fn file_of(&self, name: &str) -> Result<&SafetensorsFile> {
        match self.places.get(name) {
            Some(&file) => Ok(&self.files[file]),
            None => Err(Error::missing(&self.path, name, self.names.iter().map(String::as_str))),
        }
    }

    fn dense(&self, name: &str) -> Result<DenseTensor<'_>> {
        self.file_of(name)?.tensor(name)
    }

    /// The module of a weight whose scales are in the files and which config.json does not exempt.
    fn quantized_module<'n>(&self, weight: &'n str) -> Option<(&'n str, QuantParams)> {
        let module = weight.strip_suffix(".weight")?;
        if !self.places.contains_key(&format!("{module}.scales")) {
            return None;
        }
        self.quantization.of(module).map(|params| (module, params))
    }

    fn logical_names(&self) -> Vec<String> {
        let mut names: BTreeSet<&str> = self.places.keys().map(String::as_str).collect();
        for name in self.places.keys() {
            if let Some((module, _)) = self.quantized_module(name) {
                names.remove(format!("{module}.scales").as_str());
                names.remove(format!("{module}.biases").as_str());
            }
        }
        names.into_iter().map(str::to_owned).collect()
    }

    /// Puts the triple together and checks that its shapes agree with each other and with config.json.
    fn quantized<'a>(
        &'a self,
        name: &str,
        module: &str,
        packed: DenseTensor<'a>,
        params: QuantParams,
    ) -> Result<QuantizedTensor<'a>> {
        let QuantParams { mode, bits, group_size } = params;
        let wrong = |what: String| {
            let file = self.file_of(name).map_or(self.path.as_path(), SafetensorsFile::path);
            Error::malformed(file, format!("tensor {name} ({mode}, {bits} bits, groups of {group_size}): {what}"))
        };
        if packed.dtype != Dtype::U32 {
            return Err(wrong(format!("has scales, so its codes should be U32 words, found {}", packed.dtype)));
        }
        let shape = unpacked_shape(&packed.shape, params);
        let (Some(&columns), true) = (shape.last(), shape.len() >= 2) else {
            return Err(wrong(format!("shape {:?} should have two or three dimensions", packed.shape)));
        };
        let whole = packed.shape.last().is_some_and(|n| n.saturating_mul(32).is_multiple_of(usize::from(bits)));
        if !whole || !columns.is_multiple_of(group_size) || packed.is_empty() {
            return Err(wrong(format!("rows of {:?} words do not hold whole groups", packed.shape.last())));
        }
        let mut groups = packed.shape.clone();
        groups[shape.len() - 1] = columns / group_size;
        let part = |part: &str| -> Result<DenseTensor<'a>> {
            let tensor = self.dense(&format!("{module}.{part}"))?;
            if tensor.shape != groups {
                return Err(wrong(format!("{part} have shape {:?}, wanted {groups:?}", tensor.shape)));
            }
            let fits = match mode {
                QuantMode::Affine => tensor.dtype.is_float() && tensor.dtype != Dtype::F64,
                _ => tensor.dtype == Dtype::U8,
            };
            if !fits {
                let wanted = if mode == QuantMode::Affine { "F32, F16 or BF16" } else { "U8" };
                return Err(wrong(format!("{part} are {}, wanted {wanted}", tensor.dtype)));
            }
            Ok(tensor)
        };
        let scales = part("scales")?;
        let biases = if mode == QuantMode::Affine { Some(part("biases")?) } else { None };
        Ok(QuantizedTensor { mode, bits, group_size, shape, packed, scales, biases })
    }
}

/// Shape of the weights from the shape of their packed words.
fn unpacked_shape(packed: &[usize], params: QuantParams) -> Vec<usize> {
    let mut shape = packed.to_vec();
    if let Some(last) = shape.last_mut() {
        // A shape without elements may have any length here; it is refused later.
        *last = last.saturating_mul(32) / usize::from(params.bits);
    }
    shape
}

/// The safetensors files that make up the model: those its index names, else `model*.safetensors`, else all of them.
fn weight_files(path: &Path) -> Result<Vec<PathBuf>> {
    let index_path = path.join("model.safetensors.index.json");
    if let Some(index) = config::read_object_if_present(&index_path)? {
        let shards = index_shards(&index).ok_or_else(|| {
            Error::malformed(&index_path, "has no `weight_map` from tensor names to file names in this folder")
        })?;
        if let Some(missing) = shards.iter().find(|shard| !path.join(shard).is_file()) {
            let what = format!("names {missing}, which is not in the folder (an unfinished download?)");
            return Err(Error::malformed(&index_path, what));
        }
        return Ok(shards.iter().map(|shard| path.join(shard)).collect());
    }
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
    let mut found: Vec<String> = Vec::new();
    let mut other = None;
    for entry in entries {
        let name = entry.map_err(|e| Error::io(path, e))?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") {
            found.push(name);
        } else if name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".npz") {
            other = Some(name);
        }
    }
    if found.iter().any(|name| name.starts_with("model")) {
        found.retain(|name| name.starts_with("model"));
    }
    found.sort();
    match (found.is_empty(), other) {
        (false, _) => Ok(found.iter().map(|name| path.join(name)).collect()),
        (true, Some(other)) => {
            Err(Error::not_a_model(path, format!("no *.safetensors; {other} must be converted to safetensors first")))
        }
        (true, None) => Err(Error::not_a_model(path, "no *.safetensors with weights beside config.json")),
    }
}

/// The files an index names, sorted. `None` when it names none, or something that is not a plain file name.
pub(crate) fn index_shards(index: &Value) -> Option<BTreeSet<&str>> {
    let mut shards = BTreeSet::new();
    for shard in index["weight_map"].as_object()?.values() {
        let shard = shard.as_str()?;
        // The index comes with the model: it must not lead out of its folder.
        if shard.is_empty() || shard.contains(['/', '\\']) || shard == ".." {
            return None;
        }
        shards.insert(shard);
    }
    (!shards.is_empty()).then_some(shards)
}
