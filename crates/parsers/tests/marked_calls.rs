//! Calls in the formats of DeepSeek, Kimi, GLM, Laguna, gpt-oss, MiniMax, Gemma and Step.

#[path = "marked/deepseek.rs"]
mod deepseek;
#[path = "marked/deepseek_v4.rs"]
mod deepseek_v4;
#[path = "marked/gemma4.rs"]
mod gemma4;
#[path = "marked/glm47.rs"]
mod glm47;
#[path = "marked/harmony.rs"]
mod harmony;
#[path = "marked/kimi.rs"]
mod kimi;
#[path = "marked/minimax.rs"]
mod minimax;
#[path = "marked/step3p5.rs"]
mod step3p5;
mod support;
