"""Drives LiteLLM, as a third client, against a vllm-mlx server. Usage: litellm_client.py BASE_URL"""

import json
import sys

import litellm

BASE = sys.argv[1].rstrip("/")
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Each of the server's APIs as LiteLLM speaks it.
ROUTES = {
    "openai": {"model": "openai/smollm2", "api_base": BASE + "/v1"},
    "anthropic": {"model": "anthropic/smollm2", "api_base": BASE},
}


def ask(route, **fields):
    settings = {"messages": FRANCE, "max_tokens": 24, "temperature": 0, "api_key": "none", "num_retries": 0}
    return litellm.completion(**ROUTES[route], **{**settings, **fields})


def whole_and_streamed(route):
    answer = ask(route)
    text = answer.choices[0].message.content
    assert "Paris" in text and answer.usage.completion_tokens > 0, answer
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(route, stream=True) if chunk.choices]
    assert "".join(pieces) == text and len(pieces) > 3


def tools(route):
    answer = ask(route, tools=[TOOL], tool_choice="required", max_tokens=200)
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls", answer
    assert call.function.name == "get_weather" and isinstance(json.loads(call.function.arguments), dict)


def errors(route):
    for wanted, fields in ((litellm.BadRequestError, {"messages": [{"role": "robot", "content": "x"}]}), (litellm.NotFoundError, {"model": None})):
        settings = dict(ROUTES[route])
        if "model" in fields:
            settings["model"] = settings["model"].split("/")[0] + "/no-such-model"
            fields = {}
        try:
            litellm.completion(**{**settings, "messages": FRANCE, "max_tokens": 8, "api_key": "none", "num_retries": 0, **fields})
        except wanted:
            continue
        raise AssertionError(f"{route}: {fields} was accepted")


for name in ROUTES:
    for case in (whole_and_streamed, tools, errors):
        case(name)
        print("passed", case.__name__, name)
print("all cases passed")
