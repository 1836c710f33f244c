"""Drives the official OpenAI SDK against a vllm-mlx server. Usage: openai_sdk.py BASE_URL"""

import sys

import openai

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
    ]
    for wanted, fields in cases:
        try:
            chat(**fields)
        except wanted as error:
            assert error.body["message"], fields
        else:
            raise AssertionError(f"{fields} was accepted")


for case in (models, whole_answer, streamed_answer_equals_the_whole, several_choices, seeds_repeat, log_probabilities,
             stop_strings, length_is_reported, completions, errors_map_to_the_sdks_exceptions):
    case()
    print("passed", case.__name__)
print("all cases passed")
