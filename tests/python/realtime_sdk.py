"""Talks to a vllm-mlx server over the official OpenAI SDK's realtime client. Usage: realtime_sdk.py BASE_URL TWO_CITIES_WAV"""

import base64
import sys
import wave

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
MODEL = "smollm2"


def clip():
    """Five seconds of the file at 24 kHz, as bytes of 16 bits."""
    with wave.open(sys.argv[2]) as f:
        assert (f.getframerate(), f.getnchannels(), f.getsampwidth()) == (48000, 1, 2)
        samples = memoryview(f.readframes(5 * 48000)).cast("h")
    pairs = ((samples[i] + samples[i + 1]) // 2 for i in range(0, len(samples) - 1, 2))
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in pairs)


SPEECH = clip()
SILENCE = bytes(2 * 24000)


def connect(**query):
    return client.realtime.connect(model=MODEL, **query)


def until(connection, *kinds):
    """Events up to one of these kinds. An error that nobody waits for ends the test."""
    events = []
    while not events or events[-1].type not in kinds:
        event = connection.recv()
        events.append(event)
        assert event.type != "error" or "error" in kinds, event
    return events


def begin(connection, **session):
    assert connection.recv().type == "session.created"
    if session:
        connection.session.update(session={"type": "realtime", **session})
        updated = connection.recv()
        assert updated.type == "session.updated", updated
        return updated.session


def speak(connection, sound):
    for start in range(0, len(sound), 9600):
        connection.input_audio_buffer.append(audio=base64.b64encode(sound[start : start + 9600]).decode())


def kinds(events):
    seen = []
    for event in events:
        if event.type not in seen:
            seen.append(event.type)
    return seen


def a_spoken_turn_is_answered_in_speech():
    with connect() as connection:
        session = begin(
            connection,
            output_modalities=["audio"],
            max_output_tokens=40,
            audio={"input": {"transcription": {}}, "output": {"voice": "af_heart"}},
        )
        assert session.audio.input.turn_detection.type == "server_vad", session
        speak(connection, SPEECH + SILENCE)
        events = until(connection, "response.done")
        order = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.input_audio_transcription.completed",
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.done",
            "response.output_item.done",
            "response.done",
        ]
        found = [kind for kind in kinds(events) if kind in order]
        assert found == order, found
        heard = next(e for e in events if e.type == "conversation.item.input_audio_transcription.completed")
        assert "best of times" in heard.transcript.lower(), heard
        said = b"".join(base64.b64decode(e.delta) for e in events if e.type == "response.output_audio.delta")
        assert len(said) > 24000, f"{len(said)} bytes of speech"
        response = events[-1].response
        assert response.status in ("completed", "incomplete"), response
        (item,) = [item for item in response.output if item.type == "message"]
        written = "".join(e.delta for e in events if e.type == "response.output_audio_transcript.delta")
        assert item.content[0].transcript == written.strip() or item.content[0].transcript == written, (item, written)
        assert response.usage.output_tokens > 0


def text_in_and_text_out():
    with connect() as connection:
        begin(connection, output_modalities=["text"], audio={"input": {"turn_detection": None}})
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is the capital of France?"}]}
        connection.conversation.item.create(item=item)
        assert kinds(until(connection, "conversation.item.done")) == ["conversation.item.added", "conversation.item.done"]
        connection.response.create(response={"max_output_tokens": 24})
        events = until(connection, "response.done")
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text.strip(), events
        assert events[-1].response.output[0].content[0].text == text


def a_turn_is_committed_by_hand():
    with connect() as connection:
        begin(
            connection,
            output_modalities=["text"],
            max_output_tokens=8,
            audio={"input": {"turn_detection": None, "transcription": {"language": "en"}}},
        )
        speak(connection, SPEECH)
        connection.input_audio_buffer.commit()
        events = until(connection, "conversation.item.input_audio_transcription.completed")
        assert "best of times" in events[-1].transcript.lower(), events[-1]
        connection.response.create()
        assert until(connection, "response.done")[-1].response.status in ("completed", "incomplete")


def speech_interrupts_speech():
    with connect() as connection:
        begin(connection, output_modalities=["audio"], max_output_tokens=400)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Tell me a very long story."}]}
        connection.conversation.item.create(item=item)
        until(connection, "conversation.item.done")
        connection.response.create()
        first = until(connection, "response.output_audio.delta")[-1]
        speak(connection, SPEECH)
        events = until(connection, "response.done")
        assert "input_audio_buffer.speech_started" in kinds(events), kinds(events)
        response = events[-1].response
        assert response.status == "cancelled" and response.status_details.reason == "turn_detected", response
        connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=300)
        until(connection, "conversation.item.truncated")
        connection.conversation.item.retrieve(item_id=first.item_id)
        kept = until(connection, "conversation.item.retrieved")[-1].item
        whole = next(i for i in response.output if i.id == first.item_id)
        assert len(kept.content[0].transcript) < len(whole.content[0].transcript), (kept, whole)


def mistakes_are_told_and_the_session_lives_on():
    with connect() as connection:
        begin(connection, audio={"input": {"turn_detection": None}})
        for send, wanted in [
            (lambda: connection.send({"type": "no.such.event", "event_id": "mine"}), "no such event"),
            (lambda: connection.input_audio_buffer.append(audio="%%%"), "base64"),
            (lambda: connection.input_audio_buffer.commit(), "buffer holds"),
            (lambda: connection.conversation.item.delete(item_id="none"), "no such item"),
            (lambda: connection.response.cancel(), "no such response"),
            (lambda: connection.session.update(session={"type": "realtime", "audio": {"output": {"voice": "nobody"}}}), "nobody"),
            (lambda: connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}), "server_vad"),
        ]:
            send()
            error = until(connection, "error")[-1].error
            assert wanted in error.message, error
        connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        assert until(connection, "session.updated")[-1].session.instructions == "Be brief."


def models_are_checked_before_the_session():
    try:
        with client.realtime.connect(model="unknown", max_retries=0) as connection:
            connection.recv()
    except Exception as error:
        assert "404" in str(error), error
    else:
        raise AssertionError("a session with an unknown model began")


for case in [
    text_in_and_text_out,
    a_turn_is_committed_by_hand,
    a_spoken_turn_is_answered_in_speech,
    speech_interrupts_speech,
    mistakes_are_told_and_the_session_lives_on,
    models_are_checked_before_the_session,
]:
    case()
    print("ok", case.__name__)
print("all cases passed")
