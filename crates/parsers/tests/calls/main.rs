//! Tool calls: each format's corpus, and what holds for any text.

#[path = "../support/mod.rs"]
mod support;

mod auto;
mod bare_json;
mod functionary;
mod granite;
mod hermes;
mod hermes_json;
mod incremental;
mod llama;
mod mistral;
mod nemotron;
mod qwen;
mod qwen3_xml;
mod random;
mod tags;
mod xlam;
