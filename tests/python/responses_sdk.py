"""Drives the Responses API through the official OpenAI SDK. Usage: responses_sdk.py BASE_URL

Every object and event is also checked against the SDK's own types, which it does not do by itself."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import TypeAdapter

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
MODEL = "smollm2"
FRANCE = "What is the capital of France?"
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
                   "additionalProperties": False},
    "strict": True,
}


def create(**fields):
    return client.responses.create(**{"model": MODEL, "input": FRANCE, "max_output_tokens": 32, "temperature": 0, **fields})


def check(adapter, value):
    """The value is exactly what its type says: nothing missing, nothing of a wrong type, no field it doesn't know."""
    raw = value.to_dict(mode="json")
    adapter.validate_python(raw)
    unknown(value, "")


def unknown(value, at):
    if isinstance(value, list):
        for index, item in enumerate(value):
            unknown(item, f"{at}[{index}]")
    elif isinstance(value, openai.BaseModel):
        # `store` is in OpenAI's own answers, too; the SDK has no field for it.
        extra = set(value.model_extra or ()) - {"store"}
        assert not extra, f"{type(value).__name__}{at}: {extra}"
        for name in type(value).model_fields:
            unknown(getattr(value, name, None), f"{at}.{name}")


RESPONSE, EVENT, ITEM = TypeAdapter(Response), TypeAdapter(ResponseStreamEvent), TypeAdapter(ResponseItem)


def whole_response():
    response = create(instructions="You are a helpful assistant.", metadata={"a": "b"}, tools=[TOOL], user="me")
    check(RESPONSE, response)
    assert response.output_text and response.status in ("completed", "incomplete")
    assert (response.metadata, response.user, response.tools[0].name) == ({"a": "b"}, "me", "weather")
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert "Paris" in create().output_text


def streamed_response_equals_the_whole():
    events, whole = [], create()
    with client.responses.stream(model=MODEL, input=FRANCE, max_output_tokens=32, temperature=0) as stream:
        for event in stream:
            events.append(event)
    for number, event in enumerate(create(stream=True)):
        check(EVENT, event)
        assert event.sequence_number == number
    kinds = [event.type for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots[-1] == text
    assert kinds[-1] == f"response.{whole.status}"


def the_accumulators_final_response():
    with client.responses.stream(model=MODEL, input="Say hi.", max_output_tokens=200, temperature=0) as stream:
        final = stream.get_final_response()
    assert final.status == "completed" and final.output_text
    assert client.responses.retrieve(final.id).output_text == final.output_text


def length_is_reported():
    response = create(max_output_tokens=2)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.usage.output_tokens == 2 and response.output[0].status == "incomplete"


def conversations():
    first = create(input="My name is Alice.")
    second = create(input="What is my name?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    third = create(input="Are you sure?", previous_response_id=second.id)
    cached = [response.usage.input_tokens_details.cached_tokens for response in (second, third)]
    assert cached[1] > cached[0] > 0, cached
    # The same by hand, without the server's memory.
    items = [{"role": "user", "content": "My name is Alice."}, *first.output,
             {"role": "user", "content": "What is my name?"}]
    again = create(input=[item if isinstance(item, dict) else item.to_dict() for item in items], store=False)
    assert again.usage.input_tokens == second.usage.input_tokens


def tool_results():
    call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sunny, 21 degrees"}
    response = create(input=[{"role": "user", "content": "What is the weather in Paris?"}, call, result], tools=[TOOL])
    assert response.output_text


def stored_ones():
    response = create(input=[{"role": "user", "content": "one"}, {"role": "developer", "content": "two"}])
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()
    items = list(client.responses.input_items.list(response.id, limit=1, order="asc"))
    assert [item.role for item in items] == ["user", "developer"]
    for item in items:
        check(ITEM, item)
    client.responses.delete(response.id)
    for gone in (lambda: client.responses.retrieve(response.id), lambda: client.responses.delete(response.id),
                 lambda: create(previous_response_id=response.id)):
        raises(openai.NotFoundError, gone)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(create(store=False).id))


def in_the_background():
    begun = create(background=True, max_output_tokens=8)
    check(RESPONSE, begun)
    while (response := client.responses.retrieve(begun.id)).status in ("queued", "in_progress"):
        time.sleep(0.05)
    assert response.status in ("completed", "incomplete") and response.output_text


def cancelled():
    long = {"max_output_tokens": 1500, "extra_body": {"ignore_eos": True}}
    begun = create(background=True, **long)
    response = client.responses.cancel(begun.id)
    check(RESPONSE, response)
    assert response.status == "cancelled"
    with ThreadPoolExecutor() as elsewhere:
        for event in create(stream=True, **long):
            if event.type == "response.created":
                # The answer comes when this stream has been read to its end.
                reply = elsewhere.submit(client.responses.cancel, event.response.id)
        assert event.response.status == reply.result().status == "cancelled", event


def log_probabilities():
    response = create(top_logprobs=2, include=["message.output_text.logprobs"], max_output_tokens=4)
    check(RESPONSE, response)
    content = response.output[0].content[0]
    assert len(content.logprobs) == 4 and all(len(entry.top_logprobs) == 2 for entry in content.logprobs)
    assert b"".join(bytes(entry.bytes) for entry in content.logprobs).decode() == content.text


def keys_see_their_own():
    others = client.with_options(api_key="other")
    response = create()
    raises(openai.NotFoundError, lambda: others.responses.retrieve(response.id))


def errors_map_to_the_sdks_exceptions():
    cases = [
        (openai.NotFoundError, {"model": "gpt-9"}),
        (openai.BadRequestError, {"temperature": -1}),
        (openai.BadRequestError, {"input": []}),
        (openai.BadRequestError, {"max_output_tokens": 100_000}),
        (openai.BadRequestError, {"tools": [{"type": "web_search"}]}),
        (openai.BadRequestError, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
    ]
    for wanted, fields in cases:
        raises(wanted, lambda: create(**fields))


def tokens():
    root = sys.argv[1].removesuffix("/v1")
    reply = httpx2.post(f"{root}/tokenize", json={"model": MODEL, "prompt": "Hello, world"}).json()
    assert reply["count"] == len(reply["tokens"]) > 1
    back = httpx2.post(f"{root}/detokenize", json={"model": MODEL, "tokens": reply["tokens"]}).json()
    assert back == {"prompt": "Hello, world"}
    chat = {"model": MODEL, "messages": [{"role": "user", "content": FRANCE}]}
    assert httpx2.post(f"{root}/tokenize", json=chat).json()["count"] == create().usage.input_tokens


def raises(wanted, call):
    try:
        call()
    except wanted as error:
        assert error.body["message"]
    else:
        raise AssertionError(f"no {wanted.__name__}")


for case in (whole_response, streamed_response_equals_the_whole, the_accumulators_final_response, length_is_reported,
             conversations, tool_results, stored_ones, in_the_background, cancelled, log_probabilities,
             keys_see_their_own, errors_map_to_the_sdks_exceptions, tokens):
    case()
    print("passed", case.__name__)
print("all cases passed")
