//! `{% generation %}`, with which Hugging Face templates mark the assistant's words for training.

use std::borrow::Cow;

/// Rewrites `{% generation %}…{% endgeneration %}` as `{% with %}…{% endwith %}`: the same scope, no other effect.
///
/// Whitespace control (`{%-`, `-%}`) and line numbers stay as they are. Comments and `raw` blocks are left alone.
pub(crate) fn rewrite(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(start) = rest.find("{%").into_iter().chain((!raw).then(|| rest.find("{#")).flatten()).min() {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let close = if tag.starts_with("{#") { "#}" } else { "%}" };
        let Some(length) = tag[2..].find(close).map(|at| at + 4) else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(length);
        let name = if close == "%}" { tag_name(tag) } else { "" };
        match name {
            "raw" => raw = true,
            "endraw" => raw = false,
            _ => {}
        }
        let replacement = match name {
            "generation" if !raw => Some("with"),
            "endgeneration" if !raw => Some("endwith"),
            _ => None,
        };
        match replacement {
            Some(new) => out.push_str(&tag.replacen(name, new, 1)),
            None => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// `generation` of `{%- generation -%}`; the whole inside if there is more than a name.
fn tag_name(tag: &str) -> &str {
    tag[2..tag.len() - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_change() {
        let cases = [
            ("plain", "{% generation %}a{% endgeneration %}", "{% with %}a{% endwith %}"),
            ("whitespace control", "{%- generation -%}\na{%+ endgeneration %}", "{%- with -%}\na{%+ endwith %}"),
            ("no space", "{%generation%}a{%-endgeneration-%}", "{%with%}a{%-endwith-%}"),
            (
                "a variable of that name",
                "{% if add_generation_prompt %}generation{% endif %}",
                "{% if add_generation_prompt %}generation{% endif %}",
            ),
            ("set", "{% set generation = 1 %}{{ generation }}", "{% set generation = 1 %}{{ generation }}"),
            (
                "in raw",
                "{% raw %}{% generation %}{% endraw %}{% generation %}",
                "{% raw %}{% generation %}{% endraw %}{% with %}",
            ),
            ("in a comment", "{# {% generation %} #}x", "{# {% generation %} #}x"),
            ("unclosed", "{% generation", "{% generation"),
        ];
        for (name, source, expected) in cases {
            assert_eq!(rewrite(source), expected, "{name}");
        }
    }
}
