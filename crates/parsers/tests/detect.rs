//! What chat templates show of their model's formats. Here are the lines that tell; the templates are the models' own.

use vllm_parsers::{calls, reasoning};

/// Name of a model, lines of its template, its formats of calls and reasoning.
const TEMPLATES: &[(&str, &str, Option<&str>, Option<&str>)] = &[
    (
        "Qwen 3",
        r#"{{- '<tool_call>\n{"name": "' }}{{- '\n<think>\n' + reasoning_content }}<|im_start|>"#,
        Some("hermes"),
        Some("qwen3"),
    ),
    (
        "Qwen 2.5",
        r#"<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>"#,
        Some("hermes"),
        None,
    ),
    (
        "Qwen3-Coder",
        r"<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>",
        Some("qwen3_xml"),
        None,
    ),
    ("Qwen 3.5", r"<tool_call>\n<function=f>\n<parameter=p>{{- '<think>\n' }}", Some("qwen3_xml"), Some("qwen3")),
    ("Step 3.5", r"<im_patch><tool_call>\n<function=f>\n<parameter=p><think>\n", Some("step3p5"), Some("step3p5")),
    (
        "DeepSeek R1",
        "'<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + '```json' + '<think>\\n'",
        Some("deepseek"),
        Some("deepseek_r1"),
    ),
    (
        "DeepSeek V3.1",
        "'<｜Assistant｜><think></think>' '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'",
        Some("deepseek_v31"),
        Some("deepseek_r1"),
    ),
    ("DeepSeek V4", "dsml_token = '｜DSML｜' '<｜Assistant｜>' '<think>'", Some("deepseek_v4"), Some("deepseek_v4")),
    ("Kimi K2", "<|tool_calls_section_begin|><|tool_call_begin|>", Some("kimi"), None),
    ("Kimi K2 Thinking", "<think>{{rc}}</think><|tool_calls_section_begin|>", Some("kimi"), Some("qwen3")),
    (
        "MiniMax M2",
        "toolcall_begin_token = '<minimax:tool_call>' '<think>' ~ '\\n' [e~[",
        Some("minimax"),
        Some("qwen3"),
    ),
    ("MiniMax M3", "ns_token ~ '<tool_call>' '<mm:think>'", None, None),
    (
        "GLM 4.6",
        "[gMASK]<sop><tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key><think></think>",
        Some("glm47"),
        Some("glm4"),
    ),
    (
        "Laguna",
        "〈|EOS|〉<tool_call>function-name\n<arg_key>argument-key</arg_key><think>",
        Some("poolside_v1"),
        Some("poolside_v1"),
    ),
    ("gpt-oss", "<|start|>assistant<|channel|>analysis<|message|>", Some("harmony"), Some("gpt_oss")),
    ("Gemma 4", "'<|tool_call>call:' '}<tool_call|>' '<|channel>thought\\n'", Some("gemma4"), Some("gemma4")),
    ("Mistral Small", "[AVAILABLE_TOOLS][TOOL_CALLS]", Some("mistral"), None),
    ("Ministral Reasoning", "'[THINK]' + block['thinking'] [TOOL_CALLS]", Some("mistral"), Some("mistral")),
    ("Granite 3.3", "'<|tool_call|>'", Some("granite"), None),
    ("Llama 3.3", "<|start_header_id|><|python_tag|>", Some("llama"), None),
    ("Llama 3.2", r#"<|start_header_id|>'{"name": "' '"parameters": '"#, Some("llama"), None),
    (
        "Functionary 3.1",
        "<function=example_function_name>{{\"example_name\"}}</function> <|python_tag|>",
        Some("functionary"),
        None,
    ),
    ("Hermes 3", "<tool_call>\n{\"name\": <function-name>}\n</tool_call><|im_start|>", Some("hermes"), None),
    ("Gemma 2", "<start_of_turn>model\n", None, None),
    ("nothing", "", None, None),
];

#[test]
fn templates_show_their_formats() {
    for (model, template, call, thought) in TEMPLATES {
        assert_eq!(calls::detect(template).and_then(|format| format.names.first().copied()), *call, "calls of {model}");
        let found = reasoning::detect(template).and_then(|format| format.names.first().copied());
        assert_eq!(found, *thought, "reasoning of {model}");
    }
}
