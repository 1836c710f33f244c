//! Shapes as grammars.

use vllm_parsers::Shape;

use crate::error::{GrammarError, Result};
use crate::lark::Node;
use crate::vocabulary::Vocabulary;
use crate::{limits, regex, schema};

/// The grammar of a shape.
pub(crate) fn expand(vocabulary: &Vocabulary, shape: &Shape) -> Result<Node> {
    Expander { vocabulary, parts: 0, bytes: 0 }.node(shape, 1)
}

struct Expander<'a> {
    vocabulary: &'a Vocabulary,
    parts: usize,
    bytes: usize,
}

impl Expander<'_> {
    fn node(&mut self, shape: &Shape, depth: usize) -> Result<Node> {
        self.parts += 1;
        GrammarError::check_size("levels of nesting", depth, limits::MAX_DEPTH)?;
        GrammarError::check_size("alternatives and parts", self.parts, limits::MAX_PARTS)?;
        Ok(match shape {
            Shape::Literal(text) => Node::literal(self.counted(text)?),
            Shape::Marker(text) => match self.vocabulary.special(text) {
                Some(token) => Node::Token(token),
                None => Node::literal(self.counted(text)?),
            },
            Shape::Json(value) => Node::Json(schema::prepare(value)?),
            Shape::Regex(text) => {
                let text = regex::for_lark(self.counted(text)?);
                regex::check(&text)?;
                Node::regex(&text)
            }
            Shape::Text { without } => {
                for text in without {
                    self.counted(text)?;
                }
                // The special tokens among them can't be spelled, so no text has them.
                Node::text(without)
            }
            Shape::Sequence(shapes) => Node::sequence(self.all(shapes, depth)?),
            Shape::OneOf(shapes) if shapes.is_empty() => {
                return Err(GrammarError::Invalid("there is nothing to choose from".to_owned()));
            }
            Shape::OneOf(shapes) => Node::one_of(self.all(shapes, depth)?),
            Shape::Repeat { least, most: Some(most), .. } if least > most => {
                return Err(GrammarError::Invalid(format!("at least {least} times and at most {most} times")));
            }
            Shape::Repeat { shape, least, most } => {
                GrammarError::check_size("repetitions", most.unwrap_or(0).max(*least), limits::MAX_TIMES)?;
                Node::repeat(self.node(shape, depth + 1)?, *least, *most)
            }
        })
    }

    fn all(&mut self, shapes: &[Shape], depth: usize) -> Result<Vec<Node>> {
        shapes.iter().map(|shape| self.node(shape, depth + 1)).collect()
    }

    fn counted<'t>(&mut self, text: &'t str) -> Result<&'t str> {
        self.bytes += text.len();
        GrammarError::check_size("bytes of text", self.bytes, limits::MAX_BYTES)?;
        Ok(text)
    }
}
