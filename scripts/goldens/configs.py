"""Writes test/golden/configs/: config.json files as transformers 5 saves them, the same models as transformers 4 wrote
them (by hand: that version's spelling), and expected.json with what transformers 5 understands of each.

Also checks files written by this program: with a folder as argument, prints what transformers understands of every
config.json below it. Run by hand in an environment with transformers (made with 5.17):
    python scripts/goldens/configs.py [FOLDER]
"""
import json
import sys
from pathlib import Path

from transformers import AutoConfig, LlamaConfig, MistralConfig

GOLDEN = Path(__file__).resolve().parents[2] / "test" / "golden" / "configs"


def understood(path):
    """What the file means to transformers, in the fields that this program names."""
    c = AutoConfig.from_pretrained(path)
    eos = c.eos_token_id
    rope = dict(c.rope_parameters)
    rope.pop("type", None)
    return {
        "architecture": c.architectures[0], "vocab_size": c.vocab_size, "hidden": c.hidden_size,
        "intermediate": c.intermediate_size, "layers": c.num_hidden_layers, "heads": c.num_attention_heads,
        "kv_heads": c.num_key_value_heads, "head_dim": c.head_dim or c.hidden_size // c.num_attention_heads,
        "rms_eps": c.rms_norm_eps, "tie_embeddings": c.tie_word_embeddings,
        "attention_bias": getattr(c, "attention_bias", False), "mlp_bias": getattr(c, "mlp_bias", False),
        "max_positions": c.max_position_embeddings, "sliding_window": getattr(c, "sliding_window", None) or 0,
        "bos": c.bos_token_id, "eos": eos if isinstance(eos, list) else [] if eos is None else [eos],
        "dtype": str(c.dtype).removeprefix("torch.") if c.dtype else "float32", "rope": rope,
    }


def main():
    llama = dict(architectures=["LlamaForCausalLM"], vocab_size=64, hidden_size=32, intermediate_size=48,
                 num_hidden_layers=2, num_attention_heads=4)
    written = {
        "llama2": LlamaConfig(**llama, rms_norm_eps=1e-5, dtype="float16"),
        "llama3_gqa": LlamaConfig(**llama, num_key_value_heads=2, eos_token_id=[3, 4], dtype="bfloat16",
                                  max_position_embeddings=131072, tie_word_embeddings=True, head_dim=16,
                                  rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0,
                                                       low_freq_factor=1.0, high_freq_factor=4.0,
                                                       original_max_position_embeddings=8192)),
        "bias": LlamaConfig(**llama, attention_bias=True, mlp_bias=True, bos_token_id=None),
        "linear": LlamaConfig(**llama, rope_parameters=dict(rope_type="linear", factor=4.0)),
        "dynamic": LlamaConfig(**llama, rope_parameters=dict(rope_type="dynamic", factor=2.0)),
        "yarn": LlamaConfig(**llama, max_position_embeddings=8192,
                            rope_parameters=dict(rope_type="yarn", rope_theta=2e4, factor=4.0, beta_fast=64.0,
                                                 truncate=False, original_max_position_embeddings=2048)),
        "longrope": LlamaConfig(**llama, max_position_embeddings=8192,
                                rope_parameters=dict(rope_type="longrope", factor=4.0, short_factor=[1.0, 1.5, 2.0, 3.0],
                                                     long_factor=[1.0, 2.0, 3.0, 4.0],
                                                     original_max_position_embeddings=2048)),
        "mistral": MistralConfig(**(llama | dict(architectures=["MistralForCausalLM"])), num_key_value_heads=2,
                                 sliding_window=16, head_dim=16),
        "mistral_no_window": MistralConfig(**(llama | dict(architectures=["MistralForCausalLM"])),
                                           num_key_value_heads=2, sliding_window=None),
    }
    GOLDEN.mkdir(exist_ok=True)
    for name, config in written.items():
        config.to_json_file(GOLDEN / f"v5_{name}.json", use_diff=True)

    base = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=32,
                intermediate_size=48, num_attention_heads=4, num_hidden_layers=2, vocab_size=64, bos_token_id=1,
                eos_token_id=2, max_position_embeddings=2048, rms_norm_eps=1e-5, initializer_range=0.02,
                tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.36.0", use_cache=True)
    by_hand = {
        # as Llama 2 was published: no rope_theta, no num_key_value_heads
        "llama2": base | dict(rope_scaling=None),
        # LongLoRA and Vicuna: factor beside the base's own max_position_embeddings, "type"
        "linear": base | dict(rope_scaling=dict(type="linear", factor=8.0)),
        # LLaMA-2-7B-32K: max_position_embeddings is the extended length
        "linear_extended_length": base | dict(max_position_embeddings=16384, rope_theta=10000.0,
                                              rope_scaling=dict(type="linear", factor=8.0)),
        "llama3": base | dict(rope_theta=500000.0, num_key_value_heads=2, head_dim=8, max_position_embeddings=131072,
                              eos_token_id=[3, 4], torch_dtype="bfloat16",
                              rope_scaling=dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0,
                                                high_freq_factor=4.0, original_max_position_embeddings=8192)),
        "yarn_implicit_original": base | dict(rope_scaling=dict(type="yarn", factor=4.0)),
        "mistral": base | dict(architectures=["MistralForCausalLM"], model_type="mistral", num_key_value_heads=2,
                               rope_theta=10000.0, max_position_embeddings=32768, sliding_window=4096),
        "mistral_no_window": base | dict(architectures=["MistralForCausalLM"], model_type="mistral",
                                         num_key_value_heads=2, rope_theta=1e6, sliding_window=None),
    }
    for name, fields in by_hand.items():
        (GOLDEN / f"v4_{name}.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    expected = {p.stem: understood(p) for p in sorted(GOLDEN.glob("v*.json"))}
    (GOLDEN / "expected.json").write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}"
                                                              for k, v in expected.items()) + "\n}\n")


if len(sys.argv) > 1:
    for path in sorted(Path(sys.argv[1]).rglob("*.json")):
        print(json.dumps({path.stem: understood(path)}))
else:
    main()
