"""Drives the official Anthropic SDK against a vllm-mlx server. Usage: anthropic_sdk.py BASE_URL"""

import sys

import anthropic
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from pydantic import TypeAdapter

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
MODEL = "smollm2"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def fields(**more):
    return {"model": MODEL, "messages": FRANCE, "max_tokens": 24, "extra_body": {"temperature": 0}, **more}


def create(**more):
    message = client.messages.create(**fields(**more))
    # The SDK itself takes whatever comes: its types are asked to check it.
    Message.model_validate(message.to_dict())
    return message


def count(**more):
    wanted = {name: value for name, value in fields(**more).items() if name not in ("max_tokens", "extra_body")}
    counted = client.messages.count_tokens(**wanted)
    MessageTokensCount.model_validate(counted.to_dict())
    return counted.input_tokens


def prompt_tokens(message):
    usage = message.usage
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def text(message):
    return "".join(block.text for block in message.content if block.type == "text")


def whole_answer():
    message = create()
    assert message.id.startswith("msg_") and message.type == "message" and message.role == "assistant"
    assert "Paris" in text(message)
    assert message.stop_reason in ("end_turn", "max_tokens") and message.usage.output_tokens > 0


def streamed_answer_equals_the_whole():
    with client.messages.stream(**fields()) as stream:
        streamed = "".join(stream.text_stream)
        final = stream.get_final_message()
    whole = create()
    assert streamed == text(final) == text(whole)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert prompt_tokens(final) == prompt_tokens(whole)


def raw_events_are_of_the_sdks_types():
    adapter = TypeAdapter(RawMessageStreamEvent)
    events = list(client.messages.create(**fields(stream=True)))
    for event in events:
        adapter.validate_python(event.to_dict())
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"], kinds
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds
    assert set(kinds[2:-3]) == {"content_block_delta"}, kinds
    assert events[0].message.usage.input_tokens == count()


def prompts_are_found_again():
    again = create().usage
    assert again.cache_read_input_tokens > 0 and again.input_tokens > 0


def counts_are_exact():
    for more in (
        {},
        {"system": "You are a pirate."},
        {"system": [{"type": "text", "text": "You are a pirate.", "cache_control": {"type": "ephemeral"}}]},
        {"tools": [TOOL]},
        {"messages": FRANCE + [{"role": "assistant", "content": "Par"}]},
    ):
        assert count(**more) == prompt_tokens(create(**more, max_tokens=1)), more


def the_system_prompt_counts():
    kept, dropped = "You are a pirate.", "x-anthropic-billing-header: cc_version=2.1.177.01c; cch=36ee5;\n"
    assert count(system=kept) == count(system=dropped + kept) != count(system="Be kind to all and everybody, always.")


def stop_sequences():
    message = create(stop_sequences=["Paris", "zzz"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "Paris")
    assert "Paris" not in text(message)


def length_is_reported():
    message = create(max_tokens=2)
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 2


def more_than_the_context_holds_may_be_asked_for():
    assert create(max_tokens=20_000, stop_sequences=["Paris"]).stop_reason == "stop_sequence"


def an_answer_may_be_begun():
    begun = FRANCE + [{"role": "assistant", "content": "The capital of France is"}]
    assert "Paris" in text(create(messages=begun, max_tokens=8))


def a_conversation_with_tools():
    turns = FRANCE + [
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I should look.", "signature": "x"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Sunny."}]},
            {"type": "text", "text": "And?"},
        ]},
    ]
    message = create(messages=turns, tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert message.stop_reason in ("end_turn", "max_tokens", "tool_use")
    assert prompt_tokens(message) == count(messages=turns, tools=[TOOL]) > count(messages=turns)
    # What came back may be sent back.
    create(messages=turns + [{"role": "assistant", "content": message.content}, *FRANCE], tools=[TOOL])


def thinking_may_be_set():
    for thinking in ({"type": "disabled"}, {"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}):
        assert text(create(thinking=thinking))


def errors_map_to_the_sdks_exceptions():
    image = {"type": "image", "source": {"type": "url", "url": "http://localhost/x.png"}}
    cases = [
        (anthropic.NotFoundError, "not_found_error", {"model": "claude-opus-4-1"}),
        (anthropic.BadRequestError, "invalid_request_error", {"messages": []}),
        (anthropic.BadRequestError, "invalid_request_error", {"max_tokens": 0}),
        (anthropic.BadRequestError, "invalid_request_error", {"extra_body": {"temperature": 3}}),
        (anthropic.BadRequestError, "invalid_request_error", {"messages": [{"role": "user", "content": [image]}]}),
        (anthropic.BadRequestError, "invalid_request_error",
         {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (anthropic.BadRequestError, "invalid_request_error", {"messages": [{"role": "user", "content": "x " * 20_000}]}),
    ]
    for wanted, kind, more in cases:
        for stream in (False, True):
            try:
                create(**more) if not stream else client.messages.create(**fields(stream=True, **more))
            except wanted as error:
                assert error.body["type"] == "error" and error.body["error"]["type"] == kind == error.type, error.body
                assert error.body["error"]["message"] and error.request_id == error.body["request_id"], error.body
            else:
                raise AssertionError(f"{more} was accepted")
    try:
        create(messages=[{"role": "user", "content": "x " * 20_000}])
    except anthropic.BadRequestError as error:
        assert error.body["error"]["message"].startswith("prompt is too long: "), error.body


def requests_have_ids():
    raw = client.messages.with_raw_response.create(**fields(max_tokens=1))
    assert raw.headers["request-id"] and raw.parse()._request_id == raw.headers["request-id"]


for case in (whole_answer, streamed_answer_equals_the_whole, raw_events_are_of_the_sdks_types, prompts_are_found_again,
             counts_are_exact, the_system_prompt_counts, stop_sequences, length_is_reported,
             more_than_the_context_holds_may_be_asked_for, an_answer_may_be_begun, a_conversation_with_tools,
             thinking_may_be_set, errors_map_to_the_sdks_exceptions, requests_have_ids):
    case()
    print("passed", case.__name__)
print("all cases passed")
