//! The Jinja dialect that Hugging Face chat templates are written in.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::clock::Clock;
use super::error::Raised;
use super::json_dumps::tojson;
use super::python_methods;

/// Steps a template may take. Real ones need some hundreds a message.
pub(crate) const MAX_STEPS: u64 = 10_000_000;
/// Depth of macros calling macros. Each level takes stack, and a worker thread has 2 MiB.
const MAX_RECURSION: usize = 200;

/// An environment as `transformers` sets it up for chat templates: block tags leave no blank lines, Python's methods on
/// strings and dicts, `raise_exception`, `strftime_now`, `break` and `continue`, and nothing that reaches outside.
pub(crate) fn new(clock: Clock) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(python_methods::call);
    env.set_fuel(Some(MAX_STEPS));
    env.set_recursion_limit(MAX_RECURSION);
    env.add_filter("tojson", tojson);
    // As Python has it: None cannot be iterated, and whatever has a length and items is a sequence, strings included.
    env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Undefined | ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    env.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    env.add_function("strftime_now", move |format: String| {
        clock.strftime(&format).map_err(|error| {
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?})")).with_source(error)
        })
    });
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are what Jinja2 3.1.6 prints.
    #[test]
    fn expressions_mean_what_they_mean_in_jinja() {
        let cases = [
            ("{{ 'a.b.c'.rpartition('.')|join('|') }}{{ 'abc'.removesuffix('c') }}", "a.b|.|cab"),
            ("{{ 'héé'.index('é') }}", "1"),
            (
                "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
                "02",
            ),
            (
                "{{ none is iterable }}{{ 'a' is iterable }}{{ {} is iterable }}{{ undef is iterable }}{{ 3 is iterable }}",
                "FalseTrueTrueTrueFalse",
            ),
            (
                "{{ none is sequence }}{{ 'a' is sequence }}{{ {} is sequence }}{{ undef is sequence }}{{ 3 is sequence}}{{ [] is sequence }}{{ (1,) is sequence }}",
                "FalseTrueTrueTrueFalseTrueTrue",
            ),
            ("{{ 1 is number }}{{ true is number }}{{ true is integer }}{{ 1.0 is integer }}", "TrueTrueFalseFalse"),
            ("{{ [1,'a',none,true,1.5,{'k':'v'}] }}", "[1, 'a', None, True, 1.5, {'k': 'v'}]"),
            (r#"{{ {'a': "it's"} }}"#, r#"{'a': "it's"}"#),
            (r#"{{ 'a\nb' }}{{ ['a\nb'] }}"#, "a\nb['a\\nb']"),
            ("{{ ('x' ~ none ~ true ~ 1.0) }}", "xNoneTrue1.0"),
            (
                "{{ [1,2]|join(', ') }} {{ 'abc'[::-1] }} {{ 'abc'[-1] }} {{ 5//2 }} {{ 5/2 }} {{ 2**3 }} {{ -7 % 3 }}",
                "1, 2 cba c 2 2.5 8 2",
            ),
            (
                "{{ 'a,b'.split(',') }}{{ ' x '.strip() }}|{{ 'xay'.strip('xy') }}|{{ 'abc'.title() }}",
                "['a', 'b']x|a|Abc",
            ),
            ("{{ {'a':1}.items()|list }}", "[('a', 1)]"),
            ("{{ {'b':1,'a':2}|dictsort }}", "[('a', 2), ('b', 1)]"),
            ("{{ 'abc'|upper|replace('B','x')|capitalize }}", "Axc"),
            ("{{ [3,1,2]|sort|first }}{{ [1,2]|last }}", "12"),
            (
                "{{ x is defined }}{{ x|default('d') }}{{ none|default('d') }}{{ none|default('d',true) }}{{ ''|default('d',true) }}",
                "FalsedNonedd",
            ),
            (
                "{% for i in [1,2,3] if i>1 %}{{loop.index}}{{loop.last}}{{loop.length}}{{loop.previtem}}{% else %}e{% endfor %}",
                "1False22True22",
            ),
            ("{{ 'a' in 'abc' }}{{ 'k' in {'k':1} }}{{ 1 in [1] }}", "TrueTrueTrue"),
            ("{{ 1 == 1.0 }}{{ '1' == 1 }}{{ true == 1 }}", "TrueFalseTrue"),
            (
                "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
                "4",
            ),
            ("{{ '{}-{x}'.format(1, x=2) }}", "1-2"),
            ("{{ [1,2,3][1:] }}{{ [1,2,3][:-1] }}{{ 'abc'[5:] }}", "[2, 3][1, 2]"),
            (
                "{{ [{'a':1},{'a':2}]|map(attribute='a')|list }}{{ [{'a':1},{'b':2}]|selectattr('a','defined')|list }}",
                "[1, 2][{'a': 1}]",
            ),
            ("{{ 'x' * 3 }}{{ [1]*2 }}", "xxx[1, 1]"),
            (
                "{{ 'a b  c'.split() }}{{ 'a b c'.split(' ', 1) }}{{'abc'.find('c')}}{{ 'a'.join(['x','y']) }}",
                "['a', 'b', 'c']['a', 'b c']2xay",
            ),
            ("{{ 'é😀'|length }}{{ 'é😀'[1] }}", "2😀"),
            ("{{ [] or 'x' }}{{ 1 and 'y' }}{{ not none }}", "xyTrue"),
            ("{{ 'abc'|list }}{{ {'a':1}|list }}{{ {'a':1}|length }}", "['a', 'b', 'c']['a']1"),
            ("{{ ['a','b']|string }}{{ 'a'|e }}{{ '<'|safe }}", "['a', 'b']a<"),
            ("{{ 'abc'.removeprefix('a') }}{{ 'abc'.partition('b')|join('|') }}{{ 'abc'.index('b') }}", "bca|b|c1"),
            ("{{ {'a':1}.get('b', 2) }}{{ {'a':1}.get('b') }}{{ [1,2].index(2) }}", "2None1"),
            ("{{ dict(a=1) }}{{ {'a':1}.copy() }}{{ [1].copy() }}", "{'a': 1}{'a': 1}[1]"),
            ("{{ [1,2]|sum }}{{ [1,2]|tojson }}{{ 'b'|indent(2) }}", "3[1, 2]b"),
            ("{{ '' if false }}|{{ 1 if false }}|", "||"),
            (
                "{{ 3 is divisibleby 3 }}{{ 'a' is in ['a'] }}{{ 1 is sameas 1 }}{{ none is sameas none }}",
                "TrueTrueTrueTrue",
            ),
            (r#"{{ 'a\u00e9' }}{{ 'a' 'b' }}"#, "aéab"),
        ];
        let env = new(Clock::Fixed(0)).expect("an environment");
        for (source, expected) in cases {
            assert_eq!(env.render_str(source, ()).expect(source), expected, "{source}");
        }
    }
}
