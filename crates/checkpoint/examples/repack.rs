//! Writes any checkpoint as an MLX folder, weights and configuration only:
//! `cargo run --release -p vllm-checkpoint --example repack -- MODEL.gguf FOLDER`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use safetensors::tensor::{TensorView, serialize_to_file};
use vllm_checkpoint::{Checkpoint, DenseTensor, Dtype, TensorData};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let (Some(from), Some(to)) = (args.next(), args.next()) else { bail!("usage: repack MODEL FOLDER") };
    let start = Instant::now();
    let model = Checkpoint::open(&from)?;
    let opened = start.elapsed();
    let mut tensors: Vec<(String, DenseTensor<'_>)> = Vec::new();
    for name in model.tensor_names() {
        match model.tensor(name)? {
            TensorData::Dense(tensor) => tensors.push((name.to_owned(), tensor)),
            TensorData::Quantized(tensor) => {
                let module = name.strip_suffix(".weight").context("quantized weights are named X.weight")?;
                tensors.push((name.to_owned(), tensor.packed));
                tensors.push((format!("{module}.scales"), tensor.scales));
                tensors.extend(tensor.biases.map(|biases| (format!("{module}.biases"), biases)));
            }
        }
    }
    println!("opened in {opened:.2?}, read and repacked in {:.2?}", start.elapsed() - opened);
    std::fs::create_dir_all(&to)?;
    std::fs::write(to.join("config.json"), serde_json::to_string_pretty(model.config())?)?;
    let mut views = Vec::new();
    for (name, tensor) in &tensors {
        views.push((name, TensorView::new(file_dtype(tensor.dtype)?, tensor.shape.clone(), &tensor.bytes)?));
    }
    serialize_to_file(views, None, &to.join("model.safetensors"))?;
    Ok(())
}

fn file_dtype(dtype: Dtype) -> Result<safetensors::Dtype> {
    Ok(match dtype {
        Dtype::U32 => safetensors::Dtype::U32,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::Bf16 => safetensors::Dtype::BF16,
        Dtype::F32 => safetensors::Dtype::F32,
        other => bail!("{other} tensors are not expected in a language model"),
    })
}
