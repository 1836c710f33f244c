"""Measures a server's embeddings: beside sentence-transformers, and beside a text stream of the same server.

    python encoders.py throughput BASE_URL MODEL MODEL_DIR [ROUNDS]
    python encoders.py gaps BASE_URL MODEL TEXT_MODEL [ROUNDS]

`throughput` needs sentence-transformers; both sides embed the same 1,000 documents, in turn, and the medians of all rounds are
printed. `gaps` streams one answer alone and one while 1,000 documents are embedded, in turn, and prints the times between tokens.
"""

import base64
import http.client
import json
import random
import statistics
import sys
import threading
import time
from urllib.parse import urlparse

WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand part "
    "place case week company system program question work government number night point home water room mother area money "
    "story fact month lot right study book eye job word business issue side kind head house service friend father power"
).split()


def documents(count=1000, seed=7):
    """Mostly short, some long: 5 to 180 words."""
    draw = random.Random(seed)
    length = lambda: min(180, 5 + int(draw.expovariate(1 / 45)))
    return [" ".join(draw.choice(WORDS) for _ in range(length())) for _ in range(count)]


def post(url, path, body):
    address = urlparse(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    return connection.getresponse()


def embed(url, model, texts):
    """Vectors, tokens and seconds."""
    start = time.perf_counter()
    response = post(url, "/v1/embeddings", {"model": model, "input": texts, "encoding_format": "base64"})
    answer = json.loads(response.read())
    if response.status != 200:
        sys.exit(f"{response.status}: {answer}")
    vectors = [base64.b64decode(item["embedding"]) for item in answer["data"]]
    return vectors, answer["usage"]["total_tokens"], time.perf_counter() - start


def throughput(url, model, folder, rounds):
    import numpy
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(2)
    reference = SentenceTransformer(folder, device="cpu")
    texts = documents()
    embed(url, model, texts[:50])
    reference.encode(texts[:50])
    ours, theirs, ones = [], [], ([], [])
    for _ in range(rounds):
        vectors, tokens, seconds = embed(url, model, texts)
        ours.append(seconds)
        start = time.perf_counter()
        wanted = reference.encode(texts, batch_size=32)
        theirs.append(time.perf_counter() - start)
        for i in range(20):
            ones[0].append(embed(url, model, [texts[i]])[2])
            start = time.perf_counter()
            reference.encode([texts[i]])
            ones[1].append(time.perf_counter() - start)
    found = numpy.array([numpy.frombuffer(vector, "<f4") for vector in vectors])
    print(f"1,000 documents, {tokens} tokens; largest difference of a number {numpy.abs(found - wanted).max():.1e}")
    for name, times, alone in [("server", ours, ones[0]), ("sentence-transformers", theirs, ones[1])]:
        seconds, one = statistics.median(times), statistics.median(alone)
        print(
            f"{name}: {1000 / seconds:.0f} documents/s, {tokens / seconds:.0f} tokens/s, "
            f"one alone {1000 * one:.1f} ms (rounds: {', '.join(f'{t:.2f} s' for t in times)})"
        )


def stream(url, model, tokens=200):
    """Times between tokens, in ms."""
    body = {"model": model, "stream": True, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    response = post(url, "/v1/chat/completions", body | {"messages": [{"role": "user", "content": "Tell me a story."}]})
    times = []
    for line in response:
        if line.startswith(b"data: {"):
            times.append(time.perf_counter())
    return [1000 * (b - a) for a, b in zip(times[1:], times[2:])]


def gaps(url, model, text_model, rounds):
    texts = documents()
    stream(url, text_model, 20)
    alone, beside, waits, idle = [], [], [], []
    for _ in range(rounds):
        idle.append(embed(url, model, texts)[2])
        alone += stream(url, text_model)
        done = threading.Event()

        def background():
            waits.append(embed(url, model, texts)[2])
            done.set()

        thread = threading.Thread(target=background)
        thread.start()
        time.sleep(0.2)
        while not done.is_set():
            found = stream(url, text_model)
            # An answer that outlasted the documents says nothing.
            if not done.is_set() or not beside:
                beside += found
        thread.join()
    for name, found in [("alone", alone), ("beside 1,000 documents", beside)]:
        found.sort()
        quantile = lambda q: found[min(len(found) - 1, int(q * len(found)))]
        print(
            f"{name}: {len(found)} gaps, mean {statistics.mean(found):.1f} ms, median {quantile(0.5):.1f}, "
            f"p90 {quantile(0.9):.1f}, p99 {quantile(0.99):.1f}, longest {found[-1]:.1f}"
        )
    print(f"1,000 documents: {statistics.median(idle):.2f} s alone, {statistics.median(waits):.2f} s beside streams")


if __name__ == "__main__":
    what, url, model, other, *rest = sys.argv[1:]
    {"throughput": throughput, "gaps": gaps}[what](url, model, other, int(rest[0]) if rest else 5)
