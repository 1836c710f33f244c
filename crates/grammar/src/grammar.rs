//! A constraint, compiled.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{TokEnv, TokTrie};
use serde_json::{Value, json};
use vllm_parsers::Shape;
use vllm_platform::TokenId;

use crate::constraint::Constraint;
use crate::error::{GrammarError, Result};
use crate::processor::GrammarProcessor;
use crate::thought::{Reasoning, Tags};
use crate::tracker::{Task, allowed};
use crate::vocabulary::Vocabulary;
use crate::{gbnf, lark, limits, schema, shape};

/// A constraint, compiled for one model. Cheap to clone; makes a [`GrammarProcessor`] for each answer.
#[derive(Clone)]
pub struct Grammar(Arc<Compiled>);

struct Compiled {
    vocabulary: Arc<Vocabulary>,
    env: TokEnv,
    /// At the grammar's beginning, its first mask worked out.
    beginning: Mutex<Matcher>,
}

impl Grammar {
    /// Compiles a constraint, and works out what may come first. Takes milliseconds, for hostile input up to about a
    /// second: not for a thread that others wait for.
    ///
    /// # Errors
    /// If the constraint is too large, cannot be followed to the letter, or nothing satisfies it; or if the model's
    /// tokenizer doesn't tell what its tokens write.
    pub fn compile(vocabulary: &Arc<Vocabulary>, constraint: &Constraint) -> Result<Self> {
        let factory = vocabulary.factory()?;
        let compile = || -> Result<Matcher> {
            let grammar = top_level(vocabulary, constraint)?;
            let parser = factory.create_parser(grammar).map_err(GrammarError::from_library)?;
            let mut matcher = Matcher::new(Ok(parser)).into_cancellable();
            let watch = &vocabulary.workers().watch;
            let _watching = matcher.cancellation_handle().map(|handle| watch.stop_after(limits::FIRST_MASK, handle));
            allowed(&mut matcher, &[]).map_err(|error| {
                GrammarError::Invalid(format!("no token can come first that satisfies this: {error}"))
            })?;
            Ok(matcher)
        };
        let beginning = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("grammar-compile".to_owned()).stack_size(limits::STACK);
            let thread = thread.spawn_scoped(scope, compile);
            let thread = thread.map_err(|error| GrammarError::Invalid(format!("no thread to compile on: {error}")))?;
            thread.join().unwrap_or_else(|_| Err(GrammarError::Invalid("the compiler of grammars failed".to_owned())))
        })?;
        let (vocabulary, env) = (Arc::clone(vocabulary), factory.tok_env().clone());
        Ok(Self(Arc::new(Compiled { vocabulary, env, beginning: Mutex::new(beginning) })))
    }

    /// Holds one answer to this grammar, or what follows its chain of thought. `stop` are the tokens that end an
    /// answer; none stands for those of the model.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] if the model has no token that ends an answer, either.
    pub fn processor(&self, stop: &[TokenId], reasoning: Option<Reasoning>) -> Result<GrammarProcessor> {
        let stop = if stop.is_empty() { self.0.vocabulary.tokenizer().eos_ids() } else { stop };
        if stop.is_empty() {
            return Err(GrammarError::Vocabulary("it has no token that ends an answer".to_owned()));
        }
        let tags = reasoning.map(|reasoning| Tags::new(&self.0.vocabulary, reasoning)).transpose()?;
        let task = Task { grammar: self.clone(), stop: stop.to_owned(), tags };
        Ok(GrammarProcessor::new(task, self.0.vocabulary.workers()))
    }

    /// At the grammar's beginning.
    pub(crate) fn matcher(&self) -> Matcher {
        // A plain clone would share its lexer, and a lock, with all other answers.
        self.0.beginning.lock().unwrap_or_else(PoisonError::into_inner).deep_clone()
    }

    pub(crate) fn trie(&self) -> &TokTrie {
        self.0.env.tok_trie()
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// What llguidance is to compile.
fn top_level(vocabulary: &Vocabulary, constraint: &Constraint) -> Result<TopLevelGrammar> {
    let of_schema = |value: &Value| Ok(TopLevelGrammar::from_json_schema(schema::prepare(value)?));
    let of_shape = |shape: &Shape| Ok(TopLevelGrammar::from_lark(lark::write(&shape::expand(vocabulary, shape)?)));
    match constraint {
        Constraint::JsonSchema(schema) => of_schema(schema),
        Constraint::JsonObject => of_schema(&json!({"type": "object"})),
        Constraint::Regex(regex) => of_shape(&Shape::Regex(regex.clone())),
        Constraint::Choice(choices) if choices.is_empty() => {
            Err(GrammarError::Invalid("there must be at least one choice".to_owned()))
        }
        Constraint::Choice(choices) => of_shape(&Shape::OneOf(choices.iter().cloned().map(Shape::Literal).collect())),
        Constraint::Shape(shape) => of_shape(shape),
        Constraint::Grammar(text) => {
            GrammarError::check_size("bytes of grammar", text.len(), limits::MAX_TEXT)?;
            if gbnf::is_gbnf(text) {
                return Ok(TopLevelGrammar::from_lark(lark::write_rules(&gbnf::parse(text)?)));
            }
            lark::check(text)?;
            Ok(TopLevelGrammar::from_lark(text.clone()))
        }
    }
}
