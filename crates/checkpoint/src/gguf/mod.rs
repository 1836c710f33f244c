//! GGUF: llama.cpp's single-file format, read as if it were a Hugging Face folder.

mod blocks;
mod config;
mod header;
mod kind;
mod metadata;
mod names;
mod repack;
mod rope;
mod vocab;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use serde_json::Value;

use self::header::{Header, TensorEntry};
use self::kind::{Becomes, Kind};
use self::metadata::Metadata;
use self::names::Family;
use self::repack::{RowOrder, Source};
use self::vocab::EndOfTurn;
use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::tensor::{DenseTensor, Dtype, Storage, TensorData, TensorSpec};
use crate::tokenizer::{GgufVocab, SpecialTokens};

/// Tensors that say how positions are encoded; they end up in `config`.
const ROPE_FACTORS: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// An opened GGUF file.
#[derive(Debug)]
pub(crate) struct GgufModel {
    file: MappedFile,
    header: Header,
    family: Family,
    config: Value,
    generation_config: Value,
    eos_ids: Vec<u32>,
    /// Logical names, sorted.
    names: Vec<String>,
    /// Logical name → entry of `header.tensors`.
    places: HashMap<String, usize>,
    /// Rows of a head of queries and keys, where the file interleaves them.
    interleaved_head: Option<usize>,
}

impl GgufModel {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let header = header::parse(file.bytes()).map_err(|what| Error::malformed(path, what))?;
        let metadata = Metadata { file: file.bytes(), values: &header.metadata };
        let unsupported = |what: String| Error::unsupported(path, what);

        let architecture = metadata
            .string("general.architecture")
            .ok_or_else(|| Error::malformed(path, "metadata has no general.architecture"))?;
        let family = Family::from_name(architecture).ok_or_else(|| {
            unsupported(format!("GGUF architecture {architecture} is not known; known are {}", Family::KNOWN))
        })?;
        if let Ok(Some(parts @ 2..)) = metadata.unsigned("split.count") {
            return Err(unsupported(format!("one of {parts} parts of a split GGUF, which must be merged first")));
        }

        let mut places = HashMap::new();
        for (i, tensor) in header.tensors.iter().enumerate() {
            if ROPE_FACTORS.contains(&tensor.name.as_str()) {
                continue;
            }
            let name = family.hugging_face_name(&tensor.name);
            if places.insert(name, i).is_some() {
                return Err(Error::malformed(path, format!("tensor {} stands for a name already taken", tensor.name)));
            }
        }
        let mut names: Vec<String> = places.keys().cloned().collect();
        names.sort_unstable();

        let model = config::Inputs { family, metadata, tensors: &header.tensors, places: &places };
        let config = model.config().map_err(|what| Error::malformed(path, what))?;
        let EndOfTurn { ids: eos_ids } = EndOfTurn::read(metadata).map_err(|what| Error::malformed(path, what))?;
        let generation_config = config::generation(metadata, &eos_ids);
        let interleaved_head =
            if family.interleaves_rope() { config["head_dim"].as_u64().map(|head| head as usize) } else { None };
        Ok(Self { config, generation_config, eos_ids, names, places, interleaved_head, family, header, file })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    pub(crate) fn generation_config(&self) -> &Value {
        &self.generation_config
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn vocab(&self) -> Result<GgufVocab> {
        vocab::read(self.metadata()).map_err(|what| Error::malformed(self.path(), what))
    }

    pub(crate) fn chat_templates(&self) -> Result<BTreeMap<String, String>> {
        vocab::chat_templates(self.metadata()).map_err(|what| Error::malformed(self.path(), what))
    }

    pub(crate) fn special_tokens(&self) -> SpecialTokens {
        vocab::special_tokens(self.metadata(), self.eos_ids.clone())
    }

    pub(crate) fn spec(&self, name: &str) -> Result<TensorSpec> {
        let entry = self.entry(name)?;
        let storage = match entry.kind.becomes() {
            Becomes::Dense(_) if self.is_shifted_norm(name) => Storage::Dense(Dtype::F32),
            Becomes::Dense(dtype) => Storage::Dense(dtype),
            Becomes::Affine(params) => Storage::Quantized(params),
            Becomes::Half => Storage::Dense(Dtype::F16),
        };
        Ok(TensorSpec { shape: entry.shape.clone(), storage, file_bytes: entry.bytes.len() as u64 })
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<TensorData<'_>> {
        let entry = self.entry(name)?;
        let bytes = &self.file.bytes()[entry.bytes.clone()];
        let source = Source { kind: entry.kind, shape: &entry.shape, bytes, order: self.row_order(name, entry)? };
        Ok(match entry.kind.becomes() {
            Becomes::Dense(dtype) if self.is_shifted_norm(name) => TensorData::Dense(minus_one(dtype, entry, bytes)),
            Becomes::Dense(dtype) if source.order == RowOrder::AsInFile => {
                TensorData::Dense(DenseTensor::mapped(dtype, entry.shape.clone(), bytes, self.file.owner()))
            }
            Becomes::Dense(dtype) => TensorData::Dense(source.reordered(dtype)),
            _ if entry.shape.len() < 2 => {
                let what = format!("tensor {} is a vector in {:?}; wanted F32, F16 or BF16", entry.name, entry.kind);
                return Err(Error::unsupported(self.path(), what));
            }
            Becomes::Affine(params) => TensorData::Quantized(source.affine(params)),
            Becomes::Half => TensorData::Dense(source.half()),
        })
    }

    pub(crate) fn release(&self, name: &str) {
        if let Ok(entry) = self.entry(name) {
            self.file.release(entry.bytes.clone());
        }
    }

    fn metadata(&self) -> Metadata<'_> {
        Metadata { file: self.file.bytes(), values: &self.header.metadata }
    }

    fn entry(&self, name: &str) -> Result<&TensorEntry> {
        match self.places.get(name) {
            Some(&place) => Ok(&self.header.tensors[place]),
            None => Err(Error::missing(self.path(), name, self.names.iter().map(String::as_str))),
        }
    }

    fn is_shifted_norm(&self, name: &str) -> bool {
        self.family.bakes_one_into_norms() && name.ends_with("norm.weight")
    }

    fn row_order(&self, name: &str, entry: &TensorEntry) -> Result<RowOrder> {
        let of_attention = [".q_proj.weight", ".k_proj.weight", ".q_proj.bias", ".k_proj.bias"];
        let Some(head) = self.interleaved_head.filter(|_| of_attention.iter().any(|suffix| name.ends_with(suffix)))
        else {
            return Ok(RowOrder::AsInFile);
        };
        // Rows of a matrix; a bias is one column of them.
        let rows: usize =
            if entry.shape.len() == 1 { entry.shape[0] } else { entry.shape.iter().rev().skip(1).product() };
        if head == 0 || head % 2 != 0 || !rows.is_multiple_of(head) {
            let what = format!("tensor {}: {rows} rows are not whole heads of {head}", entry.name);
            return Err(Error::malformed(self.path(), what));
        }
        Ok(RowOrder::Rope { head })
    }
}

/// The numbers of a plain tensor as f32, less one.
fn minus_one(dtype: Dtype, entry: &TensorEntry, bytes: &[u8]) -> DenseTensor<'static> {
    let shifted = floats(dtype, bytes).flat_map(|x| (x - 1.0).to_le_bytes()).collect::<Vec<u8>>();
    DenseTensor::new(Dtype::F32, entry.shape.clone(), shifted)
}

/// The numbers of a plain tensor as f32.
fn floats(dtype: Dtype, bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(dtype.size()).map(move |x| match (dtype, x) {
        (Dtype::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        (Dtype::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
        (_, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        _ => f32::NAN,
    })
}

/// The numbers of a small tensor of the file, such as the rope factors; `None` when it is absent or quantized.
fn small_floats(file: &[u8], tensors: &[TensorEntry], name: &str) -> Option<Vec<f32>> {
    let entry = tensors.iter().find(|tensor| tensor.name == name)?;
    let dtype = match entry.kind {
        Kind::F32 => Dtype::F32,
        Kind::F16 => Dtype::F16,
        Kind::Bf16 => Dtype::Bf16,
        _ => return None,
    };
    Some(floats(dtype, &file[entry.bytes.clone()]).collect())
}
