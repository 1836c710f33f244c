"""Drives the official OpenAI SDK against a vllm-mlx server. Usage: openai_sdk.py BASE_URL"""

import concurrent.futures
import json
import re
import sys

import openai
import pydantic

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
MODEL = "smollm2"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def chat(**fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": FRANCE, "max_tokens": 24, "temperature": 0, **fields})


def models():
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def whole_answer():
    answer = chat()
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def streamed_answer_equals_the_whole():
    text, usage = "", None
    for chunk in chat(stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == chat().choices[0].message.content
    assert usage.completion_tokens > 0


def several_choices():
    answer = chat(n=3, temperature=1.0, seed=11, max_tokens=8)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert len({c.message.content for c in answer.choices}) > 1


def seeds_repeat():
    one, two = (chat(temperature=1.3, seed=5).choices[0].message.content for _ in range(2))
    assert one == two


def log_probabilities():
    content = chat(logprobs=True, top_logprobs=3, max_tokens=4).choices[0].logprobs.content
    assert len(content) == 4
    for entry in content:
        assert len(entry.top_logprobs) == 3 and entry.top_logprobs[0].logprob >= entry.logprob - 1e-6
        assert entry.logprob <= 0 and bytes(entry.bytes).decode("utf-8", "replace") == entry.token


def stop_strings():
    answer = chat(stop=["Paris"])
    assert answer.choices[0].finish_reason == "stop"
    assert "Paris" not in answer.choices[0].message.content


def length_is_reported():
    answer = chat(max_tokens=2)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 2


def completions():
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert "Paris" in answer.choices[0].text


def errors_map_to_the_sdks_exceptions():
    cases = [
        (openai.NotFoundError, {"model": "gpt-9"}),
        (openai.BadRequestError, {"temperature": -1}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"max_tokens": 100_000}),
        (openai.BadRequestError, {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}),
        (openai.BadRequestError, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": []}}}}),
    ]
    for wanted, fields in cases:
        try:
            chat(**fields)
        except wanted as error:
            assert error.body["message"], fields
        else:
            raise AssertionError(f"{fields} was accepted")


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


def check_weather(call):
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "days"} and arguments["city"] in ("Paris", "Rome") and 1 <= arguments["days"] <= 9


def forced_tool_calls():
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        for temperature in (0, 1.5):
            answer = chat(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False, max_tokens=200, temperature=temperature, seed=3)
            assert answer.choices[0].finish_reason == "tool_calls", answer
            (call,) = answer.choices[0].message.tool_calls
            check_weather(call)


def streamed_tool_calls():
    fields = dict(model=MODEL, messages=FRANCE, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_tokens=200, temperature=0)
    with client.chat.completions.stream(**fields) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        message = stream.get_final_completion().choices[0].message
    assert len(deltas) > 2
    (call,) = message.tool_calls
    check_weather(call)


def a_conversation_with_tools():
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris", "days": 1}'}}
    messages = FRANCE + [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = chat(messages=messages, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.content and answer.choices[0].message.tool_calls is None


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    age: int = pydantic.Field(ge=0, le=150)


def structured_output():
    for temperature in (0, 1.8):
        fields = dict(model=MODEL, messages=FRANCE, max_tokens=200, temperature=temperature, seed=4)
        person = client.chat.completions.parse(response_format=Person, **fields).choices[0].message.parsed
        assert isinstance(person, Person)
    answer = chat(response_format={"type": "json_object"}, max_tokens=300)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    answer = chat(extra_body={"guided_choice": ["Paris", "Rome"]})
    assert answer.choices[0].message.content in ("Paris", "Rome")
    answer = chat(extra_body={"structured_outputs": {"regex": "[A-Z][a-z]{3,8}"}})
    assert re.fullmatch("[A-Z][a-z]{3,8}", answer.choices[0].message.content)


def structured_output_in_a_batch():
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        fields = dict(model=MODEL, messages=FRANCE, max_tokens=150, temperature=1.5, response_format=Person)
        answers = list(pool.map(lambda seed: client.chat.completions.parse(seed=seed, **fields), range(6)))
    assert all(isinstance(answer.choices[0].message.parsed, Person) for answer in answers)


def repeated_prompts_are_cached():
    messages = [{"role": "system", "content": "Be brief. " * 30}] + FRANCE
    chat(messages=messages, max_tokens=1)
    assert chat(messages=messages, max_tokens=1).usage.prompt_tokens_details.cached_tokens > 30


for case in (models, whole_answer, streamed_answer_equals_the_whole, several_choices, seeds_repeat, log_probabilities,
             stop_strings, length_is_reported, completions, forced_tool_calls, streamed_tool_calls, a_conversation_with_tools,
             structured_output, structured_output_in_a_batch, repeated_prompts_are_cached, errors_map_to_the_sdks_exceptions):
    case()
    print("passed", case.__name__)
print("all cases passed")
