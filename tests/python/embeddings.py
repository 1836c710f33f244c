"""Drives the official OpenAI SDK against a server of MiniLM. Usage: embeddings.py BASE_URL"""

import sys
from array import array

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
MODEL = "minilm"
# Of the texts of `meaning`, by sentence-transformers.
COSINES = [0.75534, -0.10496]


def embed(texts, **fields):
    """Vectors and the tokens they took."""
    answer = client.embeddings.create(model=MODEL, input=texts, **fields)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data], answer.usage.total_tokens


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def models():
    assert [model.id for model in client.models.list()] == [MODEL]


def meaning():
    (food, bread, baby), tokens = embed(
        ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    )
    assert len(food) == 384 and abs(dot(food, food) - 1) < 1e-5
    assert abs(dot(food, bread) - COSINES[0]) < 1e-4 and abs(dot(food, baby) - COSINES[1]) < 1e-4
    assert tokens == 8 + 11 + 9



def both_formats_are_one():
    # The SDK asks for base64 unless it is told otherwise. What is written as text is as near as an f32 can tell.
    (read,), _ = embed("hello")
    (written,), _ = embed("hello", encoding_format="float")
    assert array("f", read) == array("f", written)


def tokens_are_texts():
    # [CLS] hello [SEP]
    assert embed("hello")[0] == embed([101, 7592, 102])[0] == embed([[101, 7592, 102]])[0]


def fewer_dimensions():
    (short,), _ = embed("hello", dimensions=64)
    (whole,), _ = embed("hello")
    length = dot(whole[:64], whole[:64]) ** 0.5
    assert len(short) == 64 and max(abs(a - b / length) for a, b in zip(short, whole)) < 1e-6


def long_texts_are_cut():
    assert embed("word " * 1000)[1] == 256
    assert embed("word " * 1000, extra_body={"truncate_prompt_tokens": 10})[1] == 10


def many_texts_are_as_each_alone():
    texts = [f"text number {i} " + "and so on " * (i % 17) for i in range(300)]
    vectors, _ = embed(texts)
    for i in (0, 16, 150, 299):
        assert embed(texts[i])[0] == [vectors[i]], i


def errors_are_the_sdk_s_own():
    for raised, call in [
        (openai.NotFoundError, lambda: client.embeddings.create(model="none", input="x")),
        (openai.BadRequestError, lambda: embed("x", dimensions=385)),
        (openai.BadRequestError, lambda: embed([])),
        (openai.BadRequestError, lambda: embed([30522])),
        (
            openai.BadRequestError,
            lambda: client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}]),
        ),
    ]:
        try:
            call()
        except raised:
            continue
        raise AssertionError(f"no {raised.__name__}")


for case in [
    models,
    meaning,
    both_formats_are_one,
    tokens_are_texts,
    fewer_dimensions,
    long_texts_are_cut,
    many_texts_are_as_each_alone,
    errors_are_the_sdk_s_own,
]:
    case()
    print("passed:", case.__name__)
print("all cases passed")
