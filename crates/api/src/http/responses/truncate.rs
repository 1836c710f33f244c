//! `truncation: auto`: the oldest messages make room for the answer.

use serde_json::Value;

use crate::{
    http::{HttpConfig, chat::ChatRequest},
    model::ServedModel,
};

/// Leaves out the oldest messages, instructions apart, until there is room for the answer. If there never is, or the
/// template wants none of it, the conversation stays as it is, for its own error. Blocks for as long as some
/// tokenisings take, as many as the conversation's length has binary digits.
pub fn make_room(chat: &mut ChatRequest, model: &ServedModel, config: &HttpConfig) {
    let context = model.engine.info().context_length;
    let answer = chat.max_tokens.unwrap_or_else(|| config.default_max_tokens.min(context / 4));
    let Some(room) = context.checked_sub(answer) else { return };
    let fits = |chat: &ChatRequest| chat.count_tokens(model).is_ok_and(|tokens| tokens <= room);
    if fits(chat) {
        return;
    }
    let whole = std::mem::take(&mut chat.messages);
    let is = |message: &Value, role: &str| message.get("role").is_some_and(|given| given == role);
    let head = whole.iter().take_while(|message| is(message, "system")).count();
    let (head, rest) = whole.split_at(head);
    let mut from = |start: usize| {
        chat.messages = [head, rest.get(start..).unwrap_or_default()].concat();
        fits(chat)
    };
    // Results don't stand without their calls.
    let starts: Vec<usize> =
        rest.iter().enumerate().skip(1).filter(|(_, message)| !is(message, "tool")).map(|(start, _)| start).collect();
    let first = starts.partition_point(|&start| !from(start));
    let Some(later @ [first, ..]) = starts.get(first..) else {
        chat.messages = whole;
        return;
    };
    // A conversation had better begin with its user.
    let begins = |start: &&usize| rest.get(**start).is_some_and(|message| is(message, "user"));
    if !later.iter().find(begins).is_some_and(|&start| from(start)) && !from(*first) {
        chat.messages = whole;
    }
}
