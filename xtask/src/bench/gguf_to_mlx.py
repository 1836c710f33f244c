"""gguf_to_mlx.py IN.gguf OUT: a llama-family GGUF with a GPT-2 tokenizer, as the directory that mlx-lm and vllm-mlx load.

Quantized weights keep their bits: MLX reads Q4_0, Q4_1 and Q8_0 into its own layout. Scales become f32, because MLX's CPU
kernels for f16 are many times slower. No answer of the copy ends by itself: its end token is one that a model never writes,
so that servers which do not know `ignore_eos` generate as many tokens as those which do.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NEVER_WRITTEN = "<reponame>"
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def renamed(name):
    """From GGUF's name of a tensor to Hugging Face's."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"
    return f"{OUTSIDE[parts[0]]}.{parts[1]}"


def unpermuted(rows, heads):
    """GGUF interleaves the two halves of each q and k head, for its RoPE."""
    size = rows.shape[0] // heads
    return rows.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def main(source, out):
    tensors, meta = mx.load(source, return_metadata=True)
    out.mkdir(parents=True, exist_ok=True)
    number = lambda name: meta[f"llama.{name}"].item()
    heads = {"attn_q": number("attention.head_count"), "attn_k": number("attention.head_count_kv")}
    weights, quantized = {}, {}
    for name, value in tensors.items():
        kind = name.split(".")[-2]
        if kind in heads:
            value = unpermuted(value, heads[kind])
        if value.dtype == mx.float16:
            value = value.astype(mx.float32)
        weights[renamed(name)] = value
    for name, scales in weights.items():
        if name.endswith(".scales"):
            module = name.removesuffix(".scales")
            # Groups of 32; a packed word holds 32 / bits weights.
            quantized[module] = weights[f"{module}.weight"].shape[-1] // scales.shape[-1]
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})

    tokens = meta["tokenizer.ggml.tokens"]
    end = tokens.index(NEVER_WRITTEN)
    quantization = {"group_size": 32, "bits": 4, "mode": "affine"}
    quantization |= {name: {"group_size": 32, "bits": bits} for name, bits in quantized.items() if bits != 4}
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": number("embedding_length"),
        "num_hidden_layers": number("block_count"),
        "intermediate_size": number("feed_forward_length"),
        "num_attention_heads": heads["attn_q"],
        "num_key_value_heads": heads["attn_k"],
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base"),
        "max_position_embeddings": number("context_length"),
        "vocab_size": len(tokens),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "torch_dtype": "float32",
        "hidden_act": "silu",
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"].item(),
        "eos_token_id": end,
        "quantization": quantization,
        "quantization_config": quantization,
    }
    (out / "config.json").write_text(json.dumps(config, indent=1))

    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = meta["tokenizer.ggml.token_type"].tolist()
    control = [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds) if kind == 3]
    tokenizer.add_special_tokens(control)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": number("context_length"),
        "bos_token": tokens[config["bos_token_id"]],
        "eos_token": NEVER_WRITTEN,
        "chat_template": meta["tokenizer.chat_template"],
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False))


main(sys.argv[1], Path(sys.argv[2]))
