"""What ours is measured beside: models that hear and speak in Python, loaded once, asked one JSON line after another.

  {"load": ENGINE, "model": PATH}         -> {"ok": true}
  {"hear": ENGINE, "file": WAV}           -> {"seconds": S, "text": T}
  {"say": ENGINE, "phonemes": P, "voice": BIN, "out": F32} -> {"seconds": S, "samples": N}
  {"mel": ENGINE, "file": WAV}            -> {"seconds": S}

Seconds are of the work alone: models are loaded and warmed up before, files read before.
"""

import json
import sys
import time
import wave

import numpy as np

THREADS = int(sys.argv[1])
engines = {}


def samples(path, rate=16000):
    with wave.open(path) as f:
        data = np.frombuffer(f.readframes(f.getnframes()), dtype=np.int16).astype(np.float32) / 32768
        channels, found = f.getnchannels(), f.getframerate()
    data = data.reshape(-1, channels).mean(axis=1)
    if found != rate:
        from math import gcd
        from scipy.signal import resample_poly

        data = resample_poly(data, rate // gcd(rate, found), found // gcd(rate, found))
    return np.ascontiguousarray(data, dtype=np.float32)


class FasterWhisper:
    def __init__(self, model, kind):
        from faster_whisper import WhisperModel

        self.model = WhisperModel(model, device="cpu", compute_type=kind, cpu_threads=THREADS)

    def hear(self, sound):
        segments, _ = self.model.transcribe(sound, beam_size=1, language="en")
        return "".join(segment.text for segment in segments)

    def mel(self, sound):
        return self.model.feature_extractor(sound)


def processor(model):
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizerFast

    config = json.load(open(model + "/config.json"))
    tokenizer = WhisperTokenizerFast(tokenizer_file=model + "/tokenizer.json")
    return config, WhisperProcessor(WhisperFeatureExtractor(feature_size=config["n_mels"]), tokenizer)


def renamed(name):
    """OpenAI's name of a tensor as transformers has it."""
    for old, new in [
        ("blocks.", "layers."),
        ("cross_attn_ln", "encoder_attn_layer_norm"),
        ("attn_ln", "self_attn_layer_norm"),
        ("mlp_ln", "final_layer_norm"),
        ("mlp1", "fc1"),
        ("mlp2", "fc2"),
        ("cross_attn.", "encoder_attn."),
        (".attn.", ".self_attn."),
        (".query.", ".q_proj."),
        (".key.", ".k_proj."),
        (".value.", ".v_proj."),
        (".out.", ".out_proj."),
        ("token_embedding", "embed_tokens"),
        ("decoder.positional_embedding", "decoder.embed_positions.weight"),
        ("ln_post", "layer_norm"),
        ("decoder.ln.", "decoder.layer_norm."),
    ]:
        name = name.replace(old, new)
    return "model." + name


class Transformers:
    def __init__(self, model):
        import torch
        from safetensors.torch import load_file
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        torch.set_num_threads(THREADS)
        self.torch = torch
        config, self.processor = processor(model)
        self.model = WhisperForConditionalGeneration(
            WhisperConfig(
                vocab_size=config["n_vocab"],
                num_mel_bins=config["n_mels"],
                d_model=config["n_audio_state"],
                encoder_layers=config["n_audio_layer"],
                decoder_layers=config["n_text_layer"],
                encoder_attention_heads=config["n_audio_head"],
                decoder_attention_heads=config["n_text_head"],
                encoder_ffn_dim=4 * config["n_audio_state"],
                decoder_ffn_dim=4 * config["n_text_state"],
                max_source_positions=config["n_audio_ctx"],
                max_target_positions=config["n_text_ctx"],
                # Of models that know English only.
                bos_token_id=50256,
                eos_token_id=50256,
                pad_token_id=50256,
                decoder_start_token_id=50257,
            )
        )
        weights = {}
        for name, tensor in load_file(model + "/weights.safetensors").items():
            tensor = tensor.float()
            weights[renamed(name)] = tensor.permute(0, 2, 1) if ".conv" in name and tensor.ndim == 3 else tensor
        weights.pop("model.alignment_heads", None)
        missing, surplus = self.model.load_state_dict(weights, strict=False)
        missing = [name for name in missing if name not in ("proj_out.weight", "model.encoder.embed_positions.weight")]
        assert not missing and not surplus, (missing, surplus)
        self.model.tie_weights()
        self.model.eval()

    def hear(self, sound):
        text = ""
        for start in range(0, len(sound), 480000):
            inputs = self.processor(sound[start : start + 480000], sampling_rate=16000, return_tensors="pt")
            begin = self.torch.tensor([[50257, 50362]])
            with self.torch.no_grad():
                tokens = self.model.generate(
                    inputs.input_features, decoder_input_ids=begin, do_sample=False, num_beams=1, max_new_tokens=220
                )
            text += self.processor.tokenizer.decode(tokens[0].tolist(), skip_special_tokens=True)
        return text


class OpenaiWhisper:
    """Only its spectrogram."""

    def __init__(self):
        import torch

        torch.set_num_threads(THREADS)

    def mel(self, sound):
        from whisper.audio import log_mel_spectrogram

        return log_mel_spectrogram(sound)


class MlxAudioWhisper:
    def __init__(self, model):
        import mlx.core as mx
        from mlx_audio.stt.models.whisper.whisper import Model, ModelDimensions

        config, known = processor(model)
        self.model = Model(ModelDimensions.from_dict(config), mx.float32)
        weights = {name: tensor.astype(mx.float32) for name, tensor in mx.load(model + "/weights.safetensors").items()}
        self.model.load_weights(list(weights.items()), strict=False)
        self.model._processor = known

    def hear(self, sound):
        return self.model.generate(sound, language="en", temperature=0.0, fp16=False).text


class Onnx:
    def __init__(self, model, vocab):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.vocab = vocab

    def say(self, phonemes, styles):
        ids = [self.vocab[c] for c in phonemes if c in self.vocab]
        style = styles[len(ids) - 1]
        speed = next(i for i in self.session.get_inputs() if i.name == "speed")
        speed = np.array([1], dtype=np.float32 if "float" in speed.type else np.int32)
        return self.session.run(None, {"tokens": [[0, *ids, 0]], "style": style, "speed": speed})[0]


class MlxAudioKokoro:
    def __init__(self, model):
        import mlx.core as mx
        from pathlib import Path
        from mlx_audio.tts.models.kokoro.kokoro import Model, ModelConfig

        config = json.load(open(model + "/config.json"))
        self.mx = mx
        self.model = Model(ModelConfig.from_dict(config), repo_id="local")
        weights = {}
        for file in Path(model).glob("*.safetensors"):
            weights.update(mx.load(str(file)))
        self.model.load_weights(list(self.model.sanitize(weights).items()), strict=False)
        self.model.eval()

    def say(self, phonemes, styles):
        ids = [c for c in phonemes if c in self.model.vocab]
        out = self.model(phonemes, self.mx.array(styles[len(ids) - 1]), 1.0)
        sound = getattr(out, "audio", out)
        self.mx.eval(sound)
        return np.array(sound)


def load(name, model):
    if name.startswith("faster-whisper "):
        return FasterWhisper(model, name.split()[1])
    if name == "transformers":
        return Transformers(model)
    if name == "openai-whisper":
        return OpenaiWhisper()
    if name == "mlx-audio, Whisper":
        return MlxAudioWhisper(model)
    if name == "ONNX Runtime int8":
        config = json.load(open(model + "/config.json"))
        return Onnx(model + "/kokoro-v1.0.int8.onnx", config["vocab"])
    if name == "mlx-audio, Kokoro":
        return MlxAudioKokoro(model)
    raise ValueError(name)


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def answer(asked):
    if "load" in asked:
        engines[asked["load"]] = load(asked["load"], asked.get("model"))
        return {"ok": True}
    if "hear" in asked:
        engine, sound = engines[asked["hear"]], samples(asked["file"])
        seconds, text = timed(lambda: engine.hear(sound))
        return {"seconds": seconds, "text": text}
    if "mel" in asked:
        engine, sound = engines[asked["mel"]], samples(asked["file"])
        return {"seconds": timed(lambda: engine.mel(sound))[0]}
    engine = engines[asked["say"]]
    styles = np.fromfile(asked["voice"], dtype=np.float32).reshape(-1, 1, 256)
    seconds, sound = timed(lambda: engine.say(asked["phonemes"], styles))
    sound = np.asarray(sound, dtype=np.float32).reshape(-1)
    if "out" in asked:
        with wave.open(asked["out"], "wb") as f:
            f.setnchannels(1), f.setsampwidth(2), f.setframerate(24000)
            f.writeframes((np.clip(sound, -1, 1) * 32767).astype(np.int16).tobytes())
    return {"seconds": seconds, "samples": int(sound.size)}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as error:  # told to whoever asked
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), file=sys.__stdout__, flush=True)
