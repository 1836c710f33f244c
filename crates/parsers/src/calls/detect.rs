//! Which format a chat template shows.

/// What a template must hold, what it must not hold, and the format it then shows. The first that fits counts.
///
/// Marks that only one format has come first; `<tool_call>`, which many have, is told apart by what stands inside.
const SIGNS: &[(&[&str], &[&str], &str)] = &[
    (&["｜DSML｜"], &[], "deepseek_v4"),
    (&["<｜tool▁calls▁begin｜>", "```"], &[], "deepseek"),
    (&["<｜tool▁calls▁begin｜>"], &[], "deepseek_v31"),
    (&["<|tool_calls_section_begin|>"], &[], "kimi"),
    (&["<minimax:tool_call>"], &[], "minimax"),
    (&["<|channel|>", "<|start|>"], &[], "harmony"),
    (&["<|tool_call>", "<tool_call|>"], &[], "gemma4"),
    (&["<arg_key>", "〈|EOS|〉"], &[], "poolside_v1"),
    (&["<arg_key>"], &[], "glm47"),
    (&["[TOOL_CALLS]"], &[], "mistral"),
    (&["<|tool_call|>"], &[], "granite"),
    (&["<|recipient|>"], &[], "functionary"),
    (&["<tool_call>", "<function=", "<im_patch>"], &[], "step3p5"),
    (&["<tool_call>", "<function="], &[], "qwen3_xml"),
    (&["<function=", "<|python_tag|>"], &[], "functionary"),
    (&["<|python_tag|>"], &[], "llama"),
    (&["<|start_header_id|>", "\"parameters\""], &["<tool_call>"], "llama"),
    (&["[Calling tool: "], &[], "qwen"),
    // A JSON list there, which other templates write as their own token, or YAML.
    (&["<tool_call>", "list of yaml"], &[], ""),
    // MiniMax M3 sets a namespace before the tag, and what it writes inside is XML all the way down.
    (&["<tool_call>", "<mm:think>"], &[], ""),
    (&["<tool_call>"], &[], "hermes"),
];

/// The name of the format that `template` shows.
pub(super) fn name(template: &str) -> Option<&'static str> {
    let holds = |sign: &&str| template.contains(*sign);
    let (_, _, name) = SIGNS.iter().find(|(with, without, _)| with.iter().all(holds) && !without.iter().any(holds))?;
    Some(*name).filter(|name| !name.is_empty())
}
