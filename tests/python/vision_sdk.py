"""Shows images and videos to a vllm-mlx server, by the SDKs of OpenAI and Anthropic. Usage: vision_sdk.py SERVER PICTURES

SERVER must allow fetches from 127.0.0.1, and from nowhere else. PICTURES is the folder tests/fixtures/pictures.
"""

import base64
import concurrent.futures
import functools
import http.server
import json
import pathlib
import struct
import sys
import threading
import urllib.request
import zlib

import anthropic
import openai

SERVER, PICTURES = sys.argv[1], pathlib.Path(sys.argv[2])
MODEL = "seeing"
oai = openai.OpenAI(base_url=SERVER + "/v1", api_key="none", max_retries=0)
claude = anthropic.Anthropic(base_url=SERVER, api_key="none", max_retries=0)


class Files(http.server.SimpleHTTPRequestHandler):
    """The pictures, and a way to where nobody may go."""

    def do_GET(self):
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{FILES.server_port}/one.png")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


FILES = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=PICTURES))
threading.Thread(target=FILES.serve_forever, daemon=True).start()


def at(name, host="127.0.0.1"):
    return f"http://{host}:{FILES.server_port}/{name}"


def read(name):
    return base64.b64encode((PICTURES / name).read_bytes()).decode()


def data(name):
    return f"data:image/{name.rpartition('.')[2]};base64,{read(name)}"


def vision():
    with urllib.request.urlopen(SERVER + "/v1/cache/stats") as reply:
        return json.load(reply)["vision"]


def ask(*urls, text="What is it?", **fields):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    return oai.chat.completions.create(**{"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0, **fields})


def details(answer):
    return answer.usage.prompt_tokens_details


def runs(work):
    """What `work` gives, and how often something was looked at for it."""
    before = vision()["encoder_runs"]
    return work(), vision()["encoder_runs"] - before


def an_image_is_the_same_in_every_wrapper():
    first, looked = runs(lambda: ask(data("one.png")))
    assert looked == 1 and details(first).cached_media_tokens == 0
    # 40 by 32 pixels in tokens of 8 by 8.
    assert details(first).image_tokens == 20
    for url in [data("one.png"), at("one.png"), data("one.webp"), at("one.bmp"), read("one.png")]:
        answer, looked = runs(lambda: ask(url))
        assert looked == 0, url[:40]
        assert details(answer).cached_tokens > 20 and details(answer).cached_media_tokens == 20, answer.usage
        assert answer.choices[0].message.content == first.choices[0].message.content
    # Elsewhere in a prompt its KV is another's, but what was seen is the same.
    again, looked = runs(lambda: ask(data("two.png"), data("one.webp")))
    assert looked == 1 and details(again).image_tokens == 40 and details(again).cached_media_tokens == 20


def another_image_is_another():
    one, two = ask(data("one.png"), logprobs=True), ask(data("two.png"), logprobs=True)
    assert one.choices[0].logprobs.content[0].logprob != two.choices[0].logprobs.content[0].logprob


def anthropic_shows_it_too():
    def message(source):
        content = [{"type": "text", "text": "Look:"}, {"type": "image", "source": source}]
        messages = [{"role": "user", "content": content}]
        return claude.messages.create(model=MODEL, max_tokens=8, messages=messages, extra_body={"temperature": 0})

    inline = {"type": "base64", "media_type": "image/png", "data": read("one.png")}
    total = lambda usage: usage.cache_read_input_tokens + usage.input_tokens
    first, looked = runs(lambda: message(inline))
    # Only how every prompt begins is known.
    assert looked == 0 and first.usage.cache_read_input_tokens < 20
    for source in [inline, {"type": "url", "url": at("one.webp")}]:
        again, looked = runs(lambda: message(source))
        assert looked == 0 and again.usage.cache_read_input_tokens > 20
        assert total(again.usage) == total(first.usage)
        assert again.content[0].text == first.content[0].text
    counted = claude.messages.count_tokens(
        model=MODEL,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image", "source": inline}]}],
    )
    assert counted.input_tokens == total(first.usage)


def responses_show_it_too():
    parts = [{"type": "input_text", "text": "Well:"}, {"type": "input_image", "image_url": data("one.bmp"), "detail": "auto"}]
    first, looked = runs(lambda: oai.responses.create(model=MODEL, input=[{"role": "user", "content": parts}], max_output_tokens=8, temperature=0))
    assert looked == 0 and first.usage.input_tokens_details.image_tokens == 20
    second = oai.responses.create(model=MODEL, input="And?", previous_response_id=first.id, max_output_tokens=8, temperature=0)
    assert second.usage.input_tokens_details.cached_tokens > 20


def many_at_once_wait_for_one_look():
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        work = lambda: list(pool.map(lambda i: ask(data("three.png"), text=f"{i}?"), range(6)))
        answers, looked = runs(work)
    assert looked == 1 and len(answers) == 6


def text_streams_meanwhile():
    def stream():
        chunks = oai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Go on."}], max_tokens=60,
                                             temperature=0, stream=True, extra_body={"ignore_eos": True})
        return sum(1 for _ in chunks)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        streams = [pool.submit(stream) for _ in range(2)]
        seen = pool.submit(lambda: ask(data("four.png")))
        assert details(seen.result()).image_tokens == 20
        assert all(stream.result() > 1 for stream in streams)


def videos_are_seen_frame_by_frame():
    def watch(part, **fields):
        messages = [{"role": "user", "content": [part, {"type": "text", "text": "What happens?"}]}]
        return oai.chat.completions.create(model=MODEL, messages=messages, max_tokens=4, temperature=0, extra_body=fields)

    film = {"type": "video_url", "video_url": {"url": data("film.gif")}}
    first, looked = runs(lambda: watch(film))
    assert looked == 2 and details(first).video_tokens == 40, (looked, first.usage)
    again, looked = runs(lambda: watch({"type": "video", "video": at("film.gif")}))
    assert looked == 0 and details(again).cached_media_tokens == 40
    few, looked = runs(lambda: watch(film, video_max_frames=2))
    assert details(few).video_tokens == 20
    frames = {"type": "video", "video": [data(f"{name}.png") for name in ["one", "two", "three", "four"]]}
    assert details(watch(frames)).video_tokens == 40


def bomb():
    """30,000 by 30,000 pixels in a few kilobytes."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    rows = zlib.compress(bytes(1 << 20), 9)
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def what_is_refused():
    cases = [
        ("a host that isn't named", at("one.png", "localhost"), 400, "media_forbidden"),
        ("the world", "https://example.com/a.png", 400, "media_forbidden"),
        ("a way there", at("elsewhere"), 400, "media_forbidden"),
        ("a file", "file:///etc/hostname", 400, "media_forbidden"),
        ("a path", "/etc/hostname", 400, "media_forbidden"),
        ("nothing there", at("none.png"), 400, "media_unreachable"),
        ("no image", at("../pictures/"), 400, None),
        ("a broken one", data("one.png")[:300], 400, "invalid_media"),
        ("a bomb", bomb(), 413, "media_too_large"),
    ]
    for name, url, status, code in cases:
        try:
            ask(url)
        except openai.APIStatusError as error:
            assert error.status_code == status, (name, error)
            assert code in (None, error.code), (name, error.code)
            assert error.param.startswith("messages[0].content[0]"), (name, error.param)
        else:
            raise AssertionError(name)
    source = {"type": "url", "url": "https://example.com/a.png"}
    try:
        claude.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    except anthropic.BadRequestError as error:
        assert "messages[0].content[0]" in str(error), error
    else:
        raise AssertionError("Anthropic's")


CASES = [
    an_image_is_the_same_in_every_wrapper,
    another_image_is_another,
    anthropic_shows_it_too,
    responses_show_it_too,
    many_at_once_wait_for_one_look,
    text_streams_meanwhile,
    videos_are_seen_frame_by_frame,
    what_is_refused,
]
for case in CASES:
    case()
    print("ok", case.__name__)
print("all cases passed")
