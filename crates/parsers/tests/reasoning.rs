//! Chains of thought: what is one, in every format, however the text comes in.

use vllm_parsers::{Split, reasoning};

/// A case: its name, whether the prompt opened the chain of thought, the answer, its chain of thought and the rest.
type Case = (&'static str, bool, &'static str, &'static str, &'static str);

/// For all formats with tags; `«` stands for the opening one and `»` for the closing one.
const TAGS: &[Case] = &[
    ("both tags", false, "«because»so", "because", "so"),
    ("newlines around the tags", false, "«\nbecause\n»\n\nso", "because", "so"),
    ("spaces around the tags", false, "« because » so", "because", " so"),
    ("newlines inside", false, "«a\n\nb»c\n\nd", "a\n\nb", "c\n\nd"),
    ("whitespace before the opening tag", false, " \n«because»so", "because", "so"),
    ("no tags", false, "so it is", "", "so it is"),
    ("no tags, leading whitespace stays", false, "  so\n", "", "  so\n"),
    ("no tags, opened by the prompt", true, "because of", "because of", ""),
    ("opened by the prompt", true, "\nbecause\n»\n\nso", "because", "so"),
    ("opened by the prompt and again", true, "«\nbecause»so", "because", "so"),
    ("never closed", false, "«because of", "because of", ""),
    ("cut off in the closing tag", false, "«because</thi", "because</thi", ""),
    ("cut off before it", false, "«because of\n\n ", "because of", ""),
    ("empty", false, "«»so", "", "so"),
    ("blank", false, "«\n\n»\n\nso", "", "so"),
    ("blank, opened by the prompt", true, "\n»so", "", "so"),
    ("nothing", false, "", "", ""),
    ("nothing, opened by the prompt", true, "", "", ""),
    ("only an opening tag", false, "«", "", ""),
    ("a lone closing tag at the beginning", false, "»\n\nso", "", "so"),
    ("a lone closing tag on a line", false, "because\n»\nso", "", "because\nso"),
    ("a lone closing tag in a line", false, "the tag » ends it", "", "the tag » ends it"),
    ("an answer about the tag", false, "use `«` and `»`.", "", "use `«` and `»`."),
    ("a thought about the tag", false, "«a « b»c", "a « b", "c"),
    ("text, then a thought", false, "Well.\n«because»so", "because", "Well.\nso"),
    ("two thoughts", false, "«one»a\n«two»b", "one\ntwo", "a\nb"),
    ("a tag after the closing tag", false, "«one»two » three", "one", "two » three"),
    ("Unicode", false, "«私は🦀»はい\u{a0}", "私は🦀", "はい\u{a0}"),
    ("what only begins like a tag", false, "«a < b </t [/T»<th [T", "a < b </t [/T", "<th [T"),
    ("a call after it", false, "«r»<tool_call>{}</tool_call>", "r", "<tool_call>{}</tool_call>"),
    ("a call inside", false, "«r\n<tool_call>\n{\"a\":1}</tool_call>\n»c", "r", "<tool_call>\n{\"a\":1}</tool_call>c"),
    ("a cut-off call inside", false, "«r <tool_call>{\"a\":", "r", "<tool_call>{\"a\":"),
    (
        "a call inside whose string holds its mark",
        true,
        "r<tool_call>{\"a\":\"</tool_call>\\\"\"}</tool_call>»c",
        "r",
        "<tool_call>{\"a\":\"</tool_call>\\\"\"}</tool_call>c",
    ),
    ("a call with a name inside", true, "r<tool_call>f</tool_call>", "r", "<tool_call>f</tool_call>"),
    ("a call with tags inside", true, "<tool_call>\n<function=f>", "", "<tool_call>\n<function=f>"),
    (
        "another format's call",
        true,
        "r<minimax:tool_call>x</minimax:tool_call>",
        "r",
        "<minimax:tool_call>x</minimax:tool_call>",
    ),
    ("a mark only mentioned", true, "the <tool_call> tag, `<tool_call>`»c", "the <tool_call> tag, `<tool_call>`", "c"),
];

const DEEPSEEK_R1: &[Case] = &[(
    "a call inside is content, what follows it is not",
    false,
    "<think>r<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>s</think>c",
    "rs",
    "<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>c",
)];

const DEEPSEEK_V4: &[Case] = &[
    (
        "calls end it",
        true,
        "r\n\n<｜DSML｜tool_calls>x</｜DSML｜tool_calls>c",
        "r",
        "<｜DSML｜tool_calls>x</｜DSML｜tool_calls>c",
    ),
    ("calls of V3.2", true, "r<｜DSML｜function_calls>x", "r", "<｜DSML｜function_calls>x"),
    ("a DSML tag that is no call", true, "r<｜DSML｜x>", "r<｜DSML｜x>", ""),
];

const GLM4: &[Case] = &[
    ("a box", false, "<think>r</think><|begin_of_box|>42<|end_of_box|>.", "r", "42."),
    ("a box without a thought", false, "It is <|begin_of_box|>42<|end_of_box|>", "", "It is 42"),
    ("a cut-off box", false, "It is <|begin_of_b", "", "It is <|begin_of_b"),
];

const MISTRAL: &[Case] = &[
    ("calls end it", true, "r[TOOL_CALLS]f{}", "r", "[TOOL_CALLS]f{}"),
    ("other tags", false, "<think>r</think>c", "", "<think>r</think>c"),
];

const GEMMA4: &[Case] = &[
    ("a thought", false, "<|channel>thought\nbecause\n<channel|>so", "because", "so"),
    ("empty", false, "<|channel>thought\n<channel|>so", "", "so"),
    ("no channel", false, "so it is", "", "so it is"),
    ("nothing", false, "", "", ""),
    ("opened by the prompt", true, "because<channel|>so", "because", "so"),
    ("opened by the prompt, never closed", true, "because", "because", ""),
    ("never closed", false, "<|channel>thought\nbecause", "because", ""),
    ("cut off in the closing mark", false, "<|channel>thought\nbecause<chan", "because<chan", ""),
    ("cut off in the name", false, "<|channel>tho", "", ""),
    ("cut off in the mark", false, "so<|chan", "", "so<|chan"),
    ("only the mark", false, "<|channel>", "", ""),
    ("on to another channel", false, "<|channel>thought\nr<|channel>response\nso", "r", "so"),
    ("another channel after the end", false, "<|channel>thought\nr<channel|><|channel>final\nso<channel|>", "r", "so"),
    ("no name", false, "<|channel>\nbecause<channel|>so", "because", "so"),
    ("an unknown name", false, "<|channel>Because<channel|>so", "Because", "so"),
    ("twice", false, "<|channel>thought\na<channel|>b<|channel>thought\nc<channel|>d", "a\nc", "bd"),
    ("newlines after it", false, "<|channel>thought\nr\n<channel|>\n\nso\n", "r", "so\n"),
    ("text before it", false, "Well. <|channel>thought\nr<channel|>so", "r", "Well. so"),
    ("a lone closing mark", false, "so<channel|>so", "", "soso"),
    ("Unicode", false, "<|channel>thought\n🦀é<channel|>ü", "🦀é", "ü"),
    ("harmony's mark", false, "<|channel|>x", "", "<|channel|>x"),
    (
        "a call inside",
        false,
        "<|channel>thought\nr <|tool_call>call:f{}<tool_call|><channel|>",
        "r",
        "<|tool_call>call:f{}<tool_call|>",
    ),
];

const GPT_OSS: &[Case] = &[
    (
        "analysis and final",
        false,
        "<|channel|>analysis<|message|>because<|end|><|start|>assistant<|channel|>final<|message|>so<|return|>",
        "because",
        "so",
    ),
    ("final only", false, "<|channel|>final<|message|>so<|return|>", "", "so"),
    ("final, constrained", false, "<|channel|>final <|constrain|>json<|message|>{\"a\":1}<|return|>", "", "{\"a\":1}"),
    ("without the marks at the ends", false, "<|channel|>analysis<|message|>a<|channel|>final<|message|>b", "a", "b"),
    ("untagged", false, "so it is", "", "so it is"),
    ("untagged, with newlines", false, "\n so\n", "", "\n so\n"),
    ("nothing", false, "", "", ""),
    ("opened by the prompt", true, "because<|end|><|start|>assistant<|channel|>final<|message|>so", "because", "so"),
    ("opened by the prompt, cut off", true, "because", "because", ""),
    ("cut off in the analysis", false, "<|channel|>analysis<|message|>because\n", "because", ""),
    ("cut off in a header", false, "<|channel|>analysis<|message|>r<|end|><|start|>assistant<|channel|>fin", "r", ""),
    ("cut off in a header's mark", false, "<|channel|>final<|mess", "", ""),
    ("cut off in a mark of a body", false, "<|channel|>final<|message|>so<|e", "", "so<|e"),
    ("cut off before the role's end", false, "<|channel|>analysis<|message|>r<|end|><|start|>ass", "r", ""),
    (
        "two analyses",
        false,
        "<|channel|>analysis<|message|>a <|end|><|start|>assistant<|channel|>analysis<|message|> b<|end|>",
        "a\nb",
        "",
    ),
    (
        "a preamble and final",
        false,
        "<|channel|>commentary<|message|>First.<|end|><|start|>assistant<|channel|>final<|message|>Then.<|return|>",
        "",
        "First.\nThen.",
    ),
    (
        "a call",
        false,
        "<|channel|>analysis<|message|>r<|end|><|start|>assistant<|channel|>commentary to=functions.f \
         <|constrain|>json<|message|>{\"a\":1}<|call|>",
        "r",
        "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>",
    ),
    (
        "a call, its recipient behind the role",
        false,
        " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
        "",
        " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
    ),
    (
        "a call in the analysis",
        false,
        "<|channel|>analysis to=python code<|message|>1+1<|call|>",
        "",
        "<|channel|>analysis to=python code<|message|>1+1<|call|>",
    ),
    (
        "marks in a call's string",
        false,
        "<|channel|>commentary to=functions.f<|message|>{\"a\":\"<|end|>\\\"<|channel|>final<|message|>\"}<|call|>",
        "",
        "<|channel|>commentary to=functions.f<|message|>{\"a\":\"<|end|>\\\"<|channel|>final<|message|>\"}<|call|>",
    ),
    (
        "a call that the next message ends",
        false,
        "<|channel|>commentary to=functions.f<|message|>{}<|start|>assistant<|channel|>final<|message|>so",
        "",
        "<|channel|>commentary to=functions.f<|message|>{}<|call|>so",
    ),
    ("a message to the user", false, "<|channel|>commentary to=user<|message|>so<|end|>", "", "so"),
    ("no channel", false, "<|message|>so<|return|>", "", "so"),
    ("an unknown channel", false, "<|channel|>odd<|message|>so", "", "so"),
    ("text about the marks", false, "a <|channel|> b", "", "a <|channel|> b"),
    ("Unicode", false, "<|channel|>analysis<|message|>é🦀<|end|><|channel|>final<|message|>ü日", "é🦀", "ü日"),
    ("text that begins like a recipient", false, "to=5", "", "to=5"),
    ("stray marks", false, "<|channel|>final<|message|>a<|message|>b<|constrain|>c", "", "abc"),
    (
        "whitespace between messages",
        false,
        "<|channel|>analysis<|message|>a<|end|>\n<|start|>assistant<|message|>b",
        "a",
        "b",
    ),
];

/// Joins neighbours, so that answers compare however they were cut.
fn joined(splits: Vec<Split>) -> Vec<Split> {
    let mut all: Vec<Split> = Vec::new();
    for split in splits {
        match (all.last_mut(), split) {
            (Some(Split::Reasoning(before)), Split::Reasoning(more)) => before.push_str(&more),
            (Some(Split::Content(before)), Split::Content(more)) => before.push_str(&more),
            (_, split) => all.push(split),
        }
    }
    all
}

fn parse<'a>(format: &str, open: bool, pieces: impl IntoIterator<Item = &'a str>) -> Vec<Split> {
    let format = reasoning::by_name(format).expect("a format");
    let mut parser = (format.parser)(open);
    let mut out = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut out);
    }
    parser.finish(&mut out);
    joined(out)
}

/// Character by character.
fn characters(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(|_| true)
}

fn check(format: &str, (name, open, text, thought, content): Case, tags: Option<(&str, &str)>) {
    let fill = |text: &str| match tags {
        Some((start, end)) => text.replace('«', start).replace('»', end),
        None => text.to_owned(),
    };
    let (text, thought, content) = (fill(text), fill(thought), fill(content));
    let whole = parse(format, open, [text.as_str()]);
    let (mut thoughts, mut contents) = (String::new(), String::new());
    for split in &whole {
        match split {
            Split::Reasoning(text) => thoughts.push_str(text),
            Split::Content(text) => contents.push_str(text),
        }
    }
    assert_eq!((thoughts, contents), (thought, content), "{format}: {name}");
    assert_eq!(parse(format, open, characters(&text)), whole, "{format}: {name}, by characters");
    for (at, _) in text.char_indices() {
        let (before, after) = text.split_at(at);
        assert_eq!(parse(format, open, [before, after]), whole, "{format}: {name}, cut at {at}");
    }
}

#[test]
fn between_tags() {
    let formats: [(&str, &[Case]); 7] = [
        ("qwen3", &[]),
        ("deepseek_r1", DEEPSEEK_R1),
        ("deepseek_v4", DEEPSEEK_V4),
        ("glm4", GLM4),
        ("step3p5", &[]),
        ("poolside_v1", &[]),
        ("mistral", MISTRAL),
    ];
    for (name, own) in formats {
        let format = reasoning::by_name(name).expect(name);
        TAGS.iter().for_each(|case| check(name, *case, Some((format.start, format.end))));
        own.iter().for_each(|case| check(name, *case, None));
    }
}

#[test]
fn gemma_channels() {
    GEMMA4.iter().for_each(|case| check("gemma4", *case, None));
}

#[test]
fn harmony_messages() {
    GPT_OSS.iter().for_each(|case| check("gpt_oss", *case, None));
    GPT_OSS.iter().for_each(|case| check("harmony", *case, None));
}

#[test]
fn a_long_header_is_text() {
    let long = format!("<|channel|>{}<|message|>so", "x".repeat(1000));
    let whole = parse("harmony", false, [long.as_str()]);
    assert_eq!(whole, [Split::Content(long.replace("<|message|>", ""))]);
    assert_eq!(parse("harmony", false, characters(&long)), whole);
}

#[test]
fn whether_the_prompt_opened_it() {
    let cases = [
        ("opened", "qwen3", "<|im_start|>assistant\n<think>\n", true),
        ("opened without a newline", "glm4", "<|assistant|><think>", true),
        ("opened and closed", "qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n", false),
        ("closed only", "deepseek_r1", "<｜Assistant｜></think>", false),
        ("nothing", "qwen3", "<|im_start|>assistant\n", false),
        ("an earlier turn's", "qwen3", "<think>a</think>b<|im_end|>\n<|im_start|>assistant\n", false),
        ("a user's", "qwen3", "what is <think>?<|im_end|>\n<|im_start|>assistant\n", false),
        ("a user's, opened", "qwen3", "what is </think>?<|im_end|>\n<|im_start|>assistant\n<think>\n", true),
        ("a user's, for DeepSeek", "deepseek_r1", "<｜User｜>what is <think>?<｜Assistant｜>", false),
        ("a user's, for Laguna", "poolside_v1", "<user>what is <think>?</user>\n<assistant>", false),
        ("to be continued", "qwen3", "<|im_start|>assistant\n<think>\nFirst, ", true),
        ("to be continued after it", "qwen3", "<|im_start|>assistant\n<think>\nr\n</think>\n\nSo ", false),
        ("mistral", "mistral", "[INST]hi[/INST][THINK]", true),
        ("mistral, a user's", "mistral", "[INST]what is [THINK]?[/INST]", false),
        ("gemma", "gemma4", "<|turn>model\n<|channel>thought\n", true),
        ("gemma, closed", "gemma4", "<|turn>model\n<|channel>thought\n<channel|>", false),
        ("harmony", "harmony", "<|start|>assistant<|channel|>analysis<|message|>", true),
        ("harmony, an earlier turn's", "harmony", "<|channel|>analysis<|message|>r<|end|><|start|>assistant", false),
    ];
    for (name, format, prompt, open) in cases {
        let format = reasoning::by_name(format).expect(name);
        assert_eq!(reasoning::is_open(format, prompt), open, "{name}");
    }
}
