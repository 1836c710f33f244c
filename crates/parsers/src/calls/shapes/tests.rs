//! Shapes of one tool, written out as a pattern: markers in ‹›, JSON as its schema's description.

use serde_json::json;

use crate::calls::by_name;
use crate::{Shape, Tool, Tools};

fn pattern(shape: &Shape) -> String {
    match shape {
        Shape::Literal(text) => text.clone(),
        Shape::Marker(text) => format!("‹{text}›"),
        Shape::Json(schema) => format!("‹{}›", schema.get("description").unwrap_or(schema)).replace('"', ""),
        Shape::Regex(regex) => format!("/{regex}/"),
        Shape::Text { without } => format!("(any but {})", without.join(", ")),
        Shape::Sequence(shapes) => shapes.iter().map(pattern).collect(),
        Shape::OneOf(shapes) => match shapes.as_slice() {
            [only] => pattern(only),
            _ => format!("({})", shapes.iter().map(pattern).collect::<Vec<_>>().join(" | ")),
        },
        Shape::Repeat { shape, least, most } => {
            let most = most.map_or(String::new(), |most| most.to_string());
            format!("({}){{{least},{most}}}", pattern(shape))
        }
    }
}

fn of(format: &str, most: Option<usize>) -> String {
    let tool = Tool {
        name: "f".to_owned(),
        parameters: Some(json!({
            "description": "arguments",
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "count": {"type": "integer", "description": "count"},
                "unit": {"enum": ["C", "F", null]},
                "note": {"type": ["string", "null"]},
            },
            "required": ["text"],
        })),
        strict: false,
    };
    let format = by_name(format).expect("a format");
    pattern(&(format.shape)(&Tools(vec![tool]), most))
}

#[test]
fn forced_calls_look_like_those_of_the_format_s_models() {
    let json = r#"{"name": "f", "arguments": ‹arguments›}"#;
    let hermes = format!("‹<tool_call>›\n{json}\n‹</tool_call>›");
    for format in ["hermes", "qwen", "auto"] {
        assert_eq!(of(format, None), format!("{hermes}(\n{hermes}){{0,}}"), "{format}");
        assert_eq!(of(format, Some(1)), hermes, "{format}");
    }
    let text = "(any but </parameter>, </function>, </tool_call>)";
    let tags = format!(
        "‹<tool_call>›\n<function=f>\n<parameter=text>\n{text}\n</parameter>\n\
         (<parameter=count>\n‹count›\n</parameter>\n){{0,1}}\
         (<parameter=unit>\n(C | F | null)\n</parameter>\n){{0,1}}\
         (<parameter=note>\n{text}\n</parameter>\n){{0,1}}\
         </function>\n‹</tool_call>›"
    );
    for format in ["qwen3_xml", "nemotron"] {
        assert_eq!(of(format, Some(2)), format!("{tags}(\n{tags}){{0,1}}"), "{format}");
    }
    let llama = r#"{"name": "f", "parameters": ‹arguments›}"#;
    assert_eq!(of("llama", Some(3)), format!("{llama}(; {llama}){{0,2}}"));
    let list = format!("[{json}(, {json}){{0,}}]");
    assert_eq!(of("xlam", None), list);
    assert_eq!(of("granite", None), format!("(‹<|tool_call|>› | ‹<tool_call>›){list}"));
    let named = "‹[TOOL_CALLS]›f‹[ARGS]›‹arguments›";
    assert_eq!(of("mistral", None), format!("({named}({named}){{0,}} | ‹[TOOL_CALLS]› {list})"));
    let (header, body) = ("‹<|from|>›assistant\n‹<|recipient|>›", "f\n‹<|content|>›‹arguments›");
    let bodies = format!("{body}(\n{header}{body}){{0,}}");
    let function = "<function=f>‹arguments›</function>";
    assert_eq!(of("functionary", None), format!("({header}{bodies} | {bodies} | {function}({function}){{0,}})"));
}

#[test]
fn tools_that_describe_no_parameters_take_any() {
    let tools = Tools(vec![Tool { name: "a \"b\"".to_owned(), parameters: None, strict: false }]);
    let of = |format| pattern(&(by_name(format).expect("a format").shape)(&tools, Some(1)));
    assert!(of("xlam").contains(r#"{"name": "a \"b\"", "arguments": ‹{type:object}›}"#), "{}", of("xlam"));
    assert!(of("qwen3_xml").contains("(<parameter=/[A-Za-z0-9_.-]{1,64}/>\n"), "{}", of("qwen3_xml"));
}
