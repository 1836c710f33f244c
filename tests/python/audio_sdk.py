"""Drives the official OpenAI SDK against a server of Whisper tiny.en and Kokoro. Usage: audio_sdk.py BASE_URL CLIPS"""

import io
import re
import sys
import wave
from pathlib import Path

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
CLIPS = Path(sys.argv[2])
EARS, MOUTH = "whisper-tiny.en", "kokoro-82m"
# Read aloud by a person; the file's name and what is said in it.
READ = CLIPS / "quick_brown_fox.wav", "the quick brown fox jumps over the lazy dog"


def words(text):
    return re.sub(r"[^a-z ]", "", text.lower().replace("-", " ")).split()


def listen(path=READ[0], **fields):
    with path.open("rb") as file:
        return client.audio.transcriptions.create(model=EARS, file=file, **fields)


def every_format():
    answer = listen()
    assert words(answer.text) == READ[1].split(), answer
    assert answer.usage.type == "duration" and answer.usage.seconds == 3, answer
    assert words(listen(response_format="text")) == READ[1].split()
    assert listen(response_format="srt").startswith("1\n00:00:00,000 --> 00:00:0")
    assert listen(response_format="vtt").startswith("WEBVTT\n\n00:00")
    whole = listen(response_format="verbose_json", timestamp_granularities=["segment", "word"])
    assert whole.language == "english" and 2.8 < whole.duration < 3 and whole.segments[0].id == 0
    assert [words(word.word)[0] for word in whole.words] == READ[1].split()
    ends = [word.end for word in whole.words]
    assert ends == sorted(ends) and ends[-1] <= whole.duration


def streamed():
    text = ""
    for event in listen(CLIPS / "two_cities.wav", stream=True):
        if event.type == "transcript.text.delta":
            text += event.delta
    assert event.type == "transcript.text.done" and event.text == text and "the best of times" in text.lower(), text
    assert text == listen(CLIPS / "two_cities.wav").text


def only_where_somebody_speaks():
    whole = listen(chunking_strategy="auto")
    assert words(whole.text) == READ[1].split()
    settings = {"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 300}
    assert words(listen(chunking_strategy=settings).text) == READ[1].split()


def english_only():
    for fields in [{"language": "de"}, {"language": "klingon"}]:
        try:
            listen(**fields)
            raise AssertionError("it was taken")
        except openai.BadRequestError as error:
            assert error.param == "language" and error.type == "invalid_request_error", error
    try:
        with READ[0].open("rb") as file:
            client.audio.translations.create(model=EARS, file=file)
        raise AssertionError("it was taken")
    except openai.BadRequestError as error:
        assert error.param == "model" and "English only" in error.message, error


def spoken(text, **fields):
    return client.audio.speech.create(model=MOUTH, voice="af_heart", input=text, **fields)


def what_is_said_is_heard():
    text = "The quick brown fox jumps over the lazy dog."
    for format in ["mp3", "wav", "flac", "opus"]:
        answer = spoken(text, response_format=format)
        file = (f"fox.{format}", io.BytesIO(answer.read()))
        heard = client.audio.transcriptions.create(model=EARS, file=file).text
        assert words(heard) == words(text), (format, heard)


def streams_sentence_by_sentence():
    text = "One is one and all alone. Two are company. Three are a crowd."
    with client.audio.speech.with_streaming_response.create(
        model=MOUTH, voice="am_adam", input=text, response_format="pcm", speed=1.25
    ) as answer:
        assert answer.headers["content-type"] == "audio/pcm"
        pieces = [piece for piece in answer.iter_bytes(1 << 20) if piece]
    sound = b"".join(pieces)
    assert len(sound) == len(spoken(text, response_format="pcm", speed=1.25, extra_body={"voice": "am_adam"}).read())
    seconds = len(sound) / 2 / 24000
    assert 2 < seconds < 12, seconds
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(24000)
        out.writeframes(sound)
    heard = client.audio.transcriptions.create(model=EARS, file=("x.wav", file.getvalue())).text.lower()
    assert "alone" in heard and "company" in heard and "crowd" in heard, heard


def refused():
    cases = [
        ({"voice": "nobody"}, "voice"),
        ({"speed": 5}, "speed"),
        ({"response_format": "aac"}, "response_format"),
        ({"instructions": "Shout."}, "instructions"),
        ({"input": " "}, "input"),
    ]
    for fields, param in cases:
        try:
            client.audio.speech.create(**{"model": MOUTH, "voice": "af_heart", "input": "hi", **fields})
            raise AssertionError(f"{fields} was taken")
        except openai.BadRequestError as error:
            assert error.param == param, error
    try:
        spoken("a " * 5000)
        raise AssertionError("a long text was taken")
    except openai.APIStatusError as error:
        assert error.status_code == 413 and error.param == "input", error


for case in [
    every_format,
    streamed,
    only_where_somebody_speaks,
    english_only,
    what_is_said_is_heard,
    streams_sentence_by_sentence,
    refused,
]:
    case()
    print("ok", case.__name__)
print("all cases passed")
