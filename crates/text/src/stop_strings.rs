//! Stop strings, which may begin in one token and end in another.

use crate::error::{Result, TextError};

/// The strings that end an answer, compiled once per request.
///
/// One automaton (Aho and Corasick 1975) follows all of them at once, a byte at a time: its state is the longest end of
/// the text so far that begins a stop string, and exactly that much is held back. The stop string that *ends* first
/// wins; of several that end at the same place, the longest. So the result does not depend on how the text was cut.
///
/// ```
/// # use vllm_text::StopStrings;
/// # fn main() -> Result<(), vllm_text::TextError> {
/// let mut stop = StopStrings::new(["\nUser:"], false)?;
/// assert_eq!(stop.push("Hi!\nU"), ("Hi!".to_owned(), None));
/// assert_eq!(stop.push("PS:"), ("\nUPS:".to_owned(), None)); // it was not one
/// assert_eq!(stop.push(" bye\nUser: me"), (" bye".to_owned(), Some("\nUser:".to_owned())));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StopStrings {
    nodes: Vec<Node>,
    /// Current state: index into `nodes`; node 0 is "nothing matched".
    state: usize,
    /// Text held back: the longest end of the text that begins a stop string.
    held: String,
    include_in_output: bool,
    done: bool,
}

/// A beginning of one or more stop strings.
#[derive(Debug, Clone, Default)]
struct Node {
    next: Vec<(u8, usize)>,
    /// The longest proper end of this beginning that is a beginning too.
    fail: usize,
    /// Its length in bytes.
    depth: usize,
    /// Length of the longest stop string that ends here; 0 if none does.
    match_length: usize,
}

impl StopStrings {
    /// Compiles `stops`. With `include_in_output` the stop string that was found is part of the text.
    ///
    /// # Errors
    /// [`TextError::EmptyStopString`].
    pub fn new<S: AsRef<str>>(stops: impl IntoIterator<Item = S>, include_in_output: bool) -> Result<Self> {
        let mut nodes = vec![Node::default()];
        for (index, stop) in stops.into_iter().enumerate() {
            let stop = stop.as_ref();
            if stop.is_empty() {
                return Err(TextError::EmptyStopString { index });
            }
            let mut at = 0;
            for (depth, byte) in stop.bytes().enumerate() {
                at = match child(&nodes[at], byte) {
                    Some(next) => next,
                    None => {
                        nodes.push(Node { depth: depth + 1, ..Node::default() });
                        let new = nodes.len() - 1;
                        nodes[at].next.push((byte, new));
                        new
                    }
                };
            }
            nodes[at].match_length = stop.len();
        }
        link(&mut nodes);
        Ok(Self { nodes, state: 0, held: String::new(), include_in_output, done: false })
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Takes the next part of the text; returns the text that is safe to show and, if it ended here, the stop string
    /// that ended it. After that, further text is ignored.
    pub fn push(&mut self, text: &str) -> (String, Option<String>) {
        if self.done {
            return (String::new(), None);
        }
        if self.is_empty() {
            return (text.to_owned(), None);
        }
        self.held.push_str(text);
        for (offset, byte) in text.bytes().enumerate() {
            self.step(byte);
            let match_length = self.nodes[self.state].match_length;
            if match_length > 0 {
                let end = self.held.len() - text.len() + offset + 1;
                return self.stop_at(end - match_length, end);
            }
        }
        let keep = self.nodes[self.state].depth;
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// Ends the text: returns what was held back.
    pub fn finish(&mut self) -> String {
        self.done = true;
        std::mem::take(&mut self.held)
    }

    /// Follows one byte.
    fn step(&mut self, byte: u8) {
        loop {
            if let Some(next) = child(&self.nodes[self.state], byte) {
                self.state = next;
                return;
            }
            if self.state == 0 {
                return;
            }
            self.state = self.nodes[self.state].fail;
        }
    }

    /// A stop string was found at `start..end` of the held text.
    fn stop_at(&mut self, start: usize, end: usize) -> (String, Option<String>) {
        self.done = true;
        let mut text = std::mem::take(&mut self.held);
        let stop = text[start..end].to_owned();
        text.truncate(if self.include_in_output { end } else { start });
        (text, Some(stop))
    }
}

fn child(node: &Node, byte: u8) -> Option<usize> {
    node.next.iter().find(|(label, _)| *label == byte).map(|&(_, next)| next)
}

/// Computes the failure links, shortest beginnings first, and the matches that are ends of longer beginnings.
fn link(nodes: &mut [Node]) {
    let mut order: Vec<usize> = (1..nodes.len()).collect();
    order.sort_by_key(|&index| nodes[index].depth);
    // Parents come before their children in this order, so a parent's link is known when its children need it.
    let mut queue: Vec<usize> = vec![0];
    queue.extend(order);
    for parent in queue {
        for (byte, node) in nodes[parent].next.clone() {
            let mut at = nodes[parent].fail;
            let fail = loop {
                match child(&nodes[at], byte) {
                    Some(next) if next != node => break next,
                    _ if at == 0 => break 0,
                    _ => at = nodes[at].fail,
                }
            };
            nodes[node].fail = fail;
            if nodes[node].match_length == 0 {
                nodes[node].match_length = nodes[fail].match_length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes `parts`; the text shown after each, the stop string found, and what `finish` adds.
    fn run(stops: &[&str], include: bool, parts: &[&str]) -> (Vec<String>, Option<String>, String) {
        let mut machine = StopStrings::new(stops, include).expect("stop strings");
        let mut found = None;
        let shown = parts
            .iter()
            .map(|part| {
                let (text, stop) = machine.push(part);
                found = found.take().or(stop);
                text
            })
            .collect();
        (shown, found, machine.finish())
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        type Case = (
            &'static str,
            &'static [&'static str],
            &'static [&'static str],
            &'static [&'static str],
            Option<&'static str>,
            &'static str,
        );
        let cases: &[Case] = &[
            ("no stop strings", &[], &["a", "b"], &["a", "b"], None, ""),
            ("nothing in common", &["xyz"], &["abc", "def"], &["abc", "def"], None, ""),
            ("within a part", &["STOP"], &["a STOP b"], &["a "], Some("STOP"), ""),
            ("over three parts", &["STOP"], &["aS", "TO", "Pb"], &["a", "", ""], Some("STOP"), ""),
            ("held and released", &["STOP"], &["aST", "x"], &["a", "STx"], None, ""),
            ("held at the end", &["STOP"], &["aSTO"], &["a"], None, "STO"),
            ("restarts inside itself", &["aab"], &["aa", "aa", "b!"], &["", "aa", ""], Some("aab"), ""),
            ("ends first wins", &["abcd", "bc"], &["abc", "d"], &["a", ""], Some("bc"), ""),
            ("same end: the longest", &["bc", "abc"], &["xabc"], &["x"], Some("abc"), ""),
            ("given twice", &["a", "a"], &["ba"], &["b"], Some("a"), ""),
            ("after the stop nothing", &["."], &["a.", "b."], &["a", ""], Some("."), ""),
            ("characters stay whole", &["é!"], &["é", "è"], &["", "éè"], None, ""),
            ("shares a first byte only", &["é"], &["è"], &["è"], None, ""),
        ];
        for (name, stops, parts, shown, found, rest) in cases {
            let (got_shown, got_found, got_rest) = run(stops, false, parts);
            assert_eq!(got_shown, *shown, "{name}: shown");
            assert_eq!(got_found.as_deref(), *found, "{name}: found");
            assert_eq!(got_rest, *rest, "{name}: finish");
        }
    }

    #[test]
    fn the_stop_string_can_be_part_of_the_text() {
        let (shown, found, rest) = run(&["STOP"], true, &["a ST", "OP b"]);
        assert_eq!((shown.concat().as_str(), found.as_deref(), rest.as_str()), ("a STOP", Some("STOP"), ""));
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        assert!(matches!(StopStrings::new(["a", ""], false), Err(TextError::EmptyStopString { index: 1 })));
    }

    /// The definition, by brute force: the first place where a stop string ends, then the longest one there.
    fn reference(stops: &[String], text: &str) -> (String, Option<String>) {
        for end in 1..=text.len() {
            let ending = stops.iter().filter(|stop| text.is_char_boundary(end) && text[..end].ends_with(stop.as_str()));
            if let Some(stop) = ending.max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn any_split_gives_the_same_result(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            parts in prop::collection::vec("[abcé]{0,5}", 0..8),
        ) {
            let mut machine = StopStrings::new(&stops, false).expect("no empty ones");
            let (mut text, mut found) = (String::new(), None);
            for part in &parts {
                let (shown, stop) = machine.push(part);
                text.push_str(&shown);
                found = found.or(stop);
            }
            text.push_str(&machine.finish());
            prop_assert_eq!((text, found), reference(&stops, &parts.concat()));
        }
    }
}
