//! The value in `<parameter=k>v</parameter>`.

use serde_json::Value;

use crate::json_scan::write_char;
use crate::typed_value;

/// Reads a value behind its opening tag and writes it as JSON.
///
/// A value is any text, and may hold tags itself. So a tag ends it only where what follows is markup, too:
/// `</parameter>` before another tag of the call or where the answer ends; `</function>` before the end of the call; and
/// `<parameter=` on a new line, if the tool has a parameter of that name. One line break on either side belongs to the
/// markup.
#[derive(Debug)]
pub(crate) struct ParameterValue {
    schema: Option<Value>,
    /// Whether a line break right here is markup.
    first: bool,
    form: Form,
    /// What may turn out to be the end.
    tail: String,
}

#[derive(Debug)]
enum Form {
    /// A string that goes out as it comes.
    Text,
    /// Only the whole tells what it is.
    Whole(String),
}

/// What stands behind a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// `<parameter=`.
    Parameter,
    /// `<parameter=` with its name and `>`.
    Named(String),
    /// `</function>`.
    FunctionEnd,
    /// The end of the whole call.
    CallEnd,
}

/// What a piece of text at the end of the value so far is.
enum Look {
    Data,
    Undecided,
    End(Next),
}

/// Longest name of a parameter.
pub(super) const MOST_BYTES: usize = 256;

/// How much white space may stand between two tags.
const MOST_SPACE: usize = 64;

pub(super) const PARAMETER: &str = "<parameter=";
pub(super) const FUNCTION_END: &str = "</function>";
pub(super) const CALL_END: &str = "</tool_call>";
const PARAMETER_END: &str = "</parameter>";

/// How the value of a parameter that no schema describes begins if it may be JSON.
const JSON_BEGINS_WITH: &[char] = &['{', '[', '"', '\'', '-', 't', 'f', 'n', 'T', 'F', 'N'];

impl ParameterValue {
    /// A value of that schema.
    pub fn new(schema: Option<&Value>, out: &mut String) -> Self {
        let form = if typed_value::is_text(schema) {
            out.push('"');
            Form::Text
        } else {
            Form::Whole(String::new())
        };
        Self { schema: schema.cloned(), first: true, form, tail: String::new() }
    }

    /// Takes the next character and writes JSON to `out`. Returns what stands behind the value, which was read as well.
    /// `may_follow` says whether a parameter of that name may come although this one was not closed.
    pub fn push(&mut self, c: char, may_follow: impl Fn(&str) -> bool, out: &mut String) -> Option<Next> {
        if std::mem::take(&mut self.first) && c == '\n' {
            return None;
        }
        self.tail.push(c);
        while let Some(first) = self.tail.chars().next() {
            match self.look(&may_follow) {
                Look::Undecided => return None,
                Look::End(next) => {
                    self.end(out);
                    return Some(next);
                }
                Look::Data => {
                    self.tail.remove(0);
                    self.data(first, out);
                }
            }
        }
        None
    }

    /// The answer is over. `false` if that cut the value off.
    pub fn finish(&mut self, out: &mut String) -> bool {
        let tag = self.tail.trim_start();
        let closed = [PARAMETER_END, FUNCTION_END, CALL_END].into_iter().any(|end| tag.starts_with(end));
        if closed {
            self.end(out);
        }
        closed
    }

    fn look(&self, may_follow: impl Fn(&str) -> bool) -> Look {
        let tag = self.tail.strip_prefix('\n').unwrap_or(&self.tail);
        if tag.is_empty() {
            return Look::Undecided;
        }
        let ends: &[(&str, Next)] =
            &[(PARAMETER, Next::Parameter), (FUNCTION_END, Next::FunctionEnd), (CALL_END, Next::CallEnd)];
        if let Some(behind) = tag.strip_prefix(PARAMETER_END) {
            return look_behind(behind, ends);
        }
        if let Some(behind) = tag.strip_prefix(FUNCTION_END) {
            return look_behind(behind, &[(CALL_END, Next::CallEnd)]);
        }
        if let Some(behind) = tag.strip_prefix(CALL_END) {
            return look_behind(behind, &[]);
        }
        let on_a_new_line = tag.len() < self.tail.len();
        match tag.strip_prefix(PARAMETER) {
            Some(name) if on_a_new_line => match name.strip_suffix('>') {
                Some(name) if may_follow(name) => Look::End(Next::Named(name.to_owned())),
                None if name.len() <= MOST_BYTES && !name.contains(['\n', '<']) => Look::Undecided,
                _ => Look::Data,
            },
            _ if [PARAMETER_END, FUNCTION_END, CALL_END].into_iter().any(|end| end.starts_with(tag)) => Look::Undecided,
            _ if on_a_new_line && PARAMETER.starts_with(tag) => Look::Undecided,
            _ => Look::Data,
        }
    }

    fn data(&mut self, c: char, out: &mut String) {
        match &mut self.form {
            Form::Text => write_char(c, out),
            Form::Whole(text) => {
                let blank = text.trim_start().is_empty();
                text.push(c);
                let may_be_json = c.is_whitespace() || c.is_ascii_digit() || JSON_BEGINS_WITH.contains(&c);
                if blank && !may_be_json && self.schema.is_none() {
                    out.push('"');
                    text.chars().for_each(|c| write_char(c, out));
                    self.form = Form::Text;
                }
            }
        }
    }

    fn end(&mut self, out: &mut String) {
        match &self.form {
            Form::Text => out.push('"'),
            Form::Whole(text) => out.push_str(&typed_value::to_json(text, self.schema.as_ref())),
        }
    }
}

/// What a closing tag is, by what stands behind it.
fn look_behind(behind: &str, ends: &[(&str, Next)]) -> Look {
    let tag = behind.trim_ascii_start();
    if behind.len() - tag.len() > MOST_SPACE {
        return Look::Data;
    }
    if let Some((_, next)) = ends.iter().find(|(end, _)| *end == tag) {
        return Look::End(next.clone());
    }
    let undecided = tag.is_empty() || ends.iter().any(|(end, _)| end.starts_with(tag));
    if undecided { Look::Undecided } else { Look::Data }
}
