//! Grammars and budgets that hold answers to what a request asks for.

use std::sync::Arc;

use vllm_grammar::{Constraint, Grammar, GrammarError, Reasoning, ThinkingBudget};
use vllm_platform::{TokenId, sampling::LogitsProcessor};

use super::ApiError;
use crate::model::ServedModel;

/// What holds the answers to one request; each answer gets processors of its own, as these follow it.
#[derive(Debug, Clone, Default)]
pub struct Guide {
    /// What an answer must look like, once its chain of thought is over.
    grammar: Option<Grammar>,
    /// Where its chain of thought begins and ends.
    reasoning: Option<Reasoning>,
    /// Most tokens of its chain of thought.
    thinking: Option<usize>,
    /// Tokens that end an answer.
    stop: Vec<TokenId>,
}

impl Guide {
    /// Compiles `constraint`, which `param` of the request asks for. Blocks, for hostile input up to a second or so.
    ///
    /// # Errors
    /// 400 naming `param` if it can't be followed.
    pub fn new(
        model: &ServedModel,
        constraint: Option<(&Constraint, &str)>,
        reasoning: Option<Reasoning>,
        thinking: Option<usize>,
        stop: &[TokenId],
    ) -> Result<Self, ApiError> {
        let compile = |(constraint, param): (&Constraint, &str)| {
            Grammar::compile(&model.vocabulary, constraint)
                .map_err(|error| ApiError::field(param, format!("{param}: {error}")).with_code(code(&error)))
        };
        let grammar = constraint.map(compile).transpose()?;
        // Only a model that thinks can think too long.
        let thinking = thinking.filter(|_| reasoning.is_some());
        Ok(Self { grammar, reasoning, thinking, stop: stop.to_vec() })
    }

    /// Whether it may leave few tokens to choose from.
    #[must_use]
    pub fn has_grammar(&self) -> bool {
        self.grammar.is_some()
    }

    /// Processors for one answer.
    ///
    /// # Errors
    /// 400 if the model's tokenizer doesn't tell what its tokens write.
    pub fn processors(&self, model: &ServedModel) -> Result<Vec<Arc<dyn LogitsProcessor>>, ApiError> {
        let mut processors: Vec<Arc<dyn LogitsProcessor>> = Vec::new();
        let refused = |error: GrammarError| ApiError::invalid(None, error.to_string()).with_code(code(&error));
        if let Some(grammar) = &self.grammar {
            processors.push(Arc::new(grammar.processor(&self.stop, self.reasoning).map_err(refused)?));
        }
        if let (Some(most), Some(reasoning)) = (self.thinking, self.reasoning) {
            processors.push(Arc::new(ThinkingBudget::new(&model.vocabulary, reasoning, most).map_err(refused)?));
        }
        Ok(processors)
    }
}

fn code(error: &GrammarError) -> &'static str {
    match error {
        GrammarError::Vocabulary(_) => "unsupported_value",
        GrammarError::Invalid(_) | GrammarError::TooLarge { .. } => "invalid_grammar",
    }
}
