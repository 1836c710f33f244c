use proptest::prelude::*;

use super::*;

#[test]
fn sentences_end_where_they_do() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("none", "  \n ", &[]),
        ("no mark", "Hello", &["Hello"]),
        ("two", "Hello. World.", &["Hello.", "World."]),
        ("marks together", "What?! No way... Yes!", &["What?!", "No way...", "Yes!"]),
        ("titles", "Mr. and Mrs. Smith met Dr. No. They left.", &["Mr. and Mrs. Smith met Dr. No. They left."]),
        ("answer", "No. I won't.", &["No.", "I won't."]),
        ("decimals", "It is 3.14 or 2.7. Fine.", &["It is 3.14 or 2.7.", "Fine."]),
        (
            "initials",
            "J. S. Bach wrote it. So did I. Then he left.",
            &["J. S. Bach wrote it.", "So did I.", "Then he left."],
        ),
        ("states", "The U.S. Army came at 5 p.m. It rained.", &["The U.S. Army came at 5 p.m.", "It rained."]),
        ("quotes", "\"Stop!\" he said. \"Why?\" She ran.", &["\"Stop!\" he said.", "\"Why?\"", "She ran."]),
        ("quote behind a stop", "He said \"no.\" Then he left.", &["He said \"no.\"", "Then he left."]),
        ("ellipsis inside", "Well… maybe. Or… No.", &["Well… maybe.", "Or…", "No."]),
        ("addresses", "See example.com/a.b now. Done.", &["See example.com/a.b now.", "Done."]),
        ("lines", "One\nTwo\nand a half\n\nthree", &["One", "Two\nand a half", "three"]),
        ("list", "1. Wash it.\n2. Dry it.", &["1. Wash it.", "2. Dry it."]),
        ("rule", "Above\n-----\n***\nBelow", &["Above", "-----\n***\nBelow"]),
        ("Chinese", "你好。今天很好！是吗？", &["你好。", "今天很好！", "是吗？"]),
        ("Japanese quotes", "「はい。」と言った。次。", &["「はい。」", "と言った。", "次。"]),
        ("Hindi", "यह है। वह है।", &["यह है।", "वह है।"]),
    ];
    for (case, text, sentences) in cases {
        assert_eq!(split(text), *sentences, "{case}");
    }
}

#[test]
fn a_long_opening_is_cut_at_its_first_clause() {
    let long = "When the rain had stopped at last, the children ran out into the garden. They played.";
    let cases: &[(&str, &str, usize, &[&str])] = &[
        (
            "clause",
            long,
            4,
            &["When the rain had stopped at last,", "the children ran out into the garden.", "They played."],
        ),
        ("too few words before", long, 8, &split(long)),
        ("too few words behind", "He went away quite slowly, you know.", 4, &["He went away quite slowly, you know."]),
        ("numbers", "They counted up to 1,000,000 sheep in all.", 2, &["They counted up to 1,000,000 sheep in all."]),
        ("nothing", "", 1, &[]),
    ];
    for (case, text, words, parts) in cases {
        assert_eq!(utterances(text, Some(*words)), *parts, "{case}");
        assert_eq!(utterances(text, None), split(text), "{case}");
    }
}

#[test]
fn what_is_too_long_is_cut_in_two() {
    let cases = [
        ("clause", "one two three four, five six seven", Some(("one two three four,", "five six seven"))),
        (
            "clause too near the end",
            "one two three four five six, seven",
            Some(("one two three four", "five six, seven")),
        ),
        ("one word", "abcdef", Some(("abc", "def"))),
        ("wide", "今天天气很好，我们出去吧", Some(("今天天气很好，", "我们出去吧"))),
        ("one letter", "a", None),
        ("nothing", "", None),
    ];
    for (case, text, parts) in cases {
        assert_eq!(halves(text), parts, "{case}");
    }
}

#[test]
fn a_streamed_opening_is_given_before_its_sentence_ends() {
    let mut stream = SentenceStream::with_opening(3);
    assert!(stream.push("When all was done, they ").is_empty());
    assert_eq!(stream.push("went home, tired"), ["When all was done,"]);
    assert!(stream.push(" and quite happy, all of them").is_empty());
    assert_eq!(stream.finish(), ["they went home, tired and quite happy, all of them"]);
}

proptest! {
    /// However a text comes in, the sentences are the same.
    #[test]
    fn a_stream_gives_the_sentences_of_the_text(
        words in prop::collection::vec("[A-Za-z]{1,4}|Dr|U\\.S|[0-9]{1,2}|。|\\.|\\?|!|…|\"|,|\n|\n\n| ", 0..40),
        cuts in prop::collection::vec(1usize..6, 1..20),
    ) {
        let text: String = words.iter().map(|word| word.clone() + if word.len() % 2 == 0 { " " } else { "" }).collect();
        let mut stream = SentenceStream::new();
        let mut sentences = Vec::new();
        let mut letters = text.chars().peekable();
        for cut in cuts.iter().cycle() {
            if letters.peek().is_none() {
                break;
            }
            let piece: String = letters.by_ref().take(*cut).collect();
            sentences.extend(stream.push(&piece));
        }
        sentences.extend(stream.finish());
        prop_assert_eq!(sentences, split(&text));
    }

    /// Nothing is lost, and nothing panics.
    #[test]
    fn every_letter_is_in_a_sentence(text in "\\PC{0,80}") {
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        prop_assert_eq!(letters(&split(&text).concat()), letters(&text));
        prop_assert_eq!(letters(&utterances(&text, Some(2)).concat()), letters(&text));
        if let Some((left, right)) = halves(&text) {
            prop_assert_eq!(letters(left) + &letters(right), letters(&text));
        }
    }
}
