"""Writes test/golden/rope.json: frequencies and attention factors of every RoPE law, by transformers' own functions.

The functions compute in float32; here their module sees a torch whose float types are float64, so that the golden values
are exact to the last digits. Run by hand in an environment with transformers (made with 5.17):
    python scripts/goldens/rope.py
"""
import json
import types
from pathlib import Path

import torch
import transformers.modeling_rope_utils as rope
import transformers.models.llama.modeling_llama as llama
from transformers import LlamaConfig

double = types.SimpleNamespace(**{name: getattr(torch, name) for name in dir(torch) if not name.startswith("__")})
double.float = double.float32 = torch.float64
rope.torch = llama.torch = double
torch.Tensor.float = torch.Tensor.double


def case(name, head_dim, max_positions, length, **parameters):
    config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim,
                         max_position_embeddings=max_positions, rope_parameters=dict(parameters))
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        inverse, attention = llama.LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        inverse, attention = rope.ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    assert inverse.dtype == torch.float64
    # as a config.json of transformers 5 gives it, so that the reader is tested on the way
    return {"name": name, "head_dim": head_dim, "max_position_embeddings": max_positions, "length": length,
            "rope_parameters": parameters, "attention": attention, "inverse": inverse.tolist()}


ramp = [1.0 + i / 2 for i in range(64)]
short = [1.0 + i / 100 for i in range(64)]
cases = [
    case("default", 128, 4096, 4096, rope_type="default", rope_theta=1e4),
    case("default_5e5_d64", 64, 8192, 8192, rope_type="default", rope_theta=5e5),
    case("linear8", 128, 4096, 32768, rope_type="linear", rope_theta=1e4, factor=8.0),
    case("linear2.5_d32", 32, 512, 1280, rope_type="linear", rope_theta=1e4, factor=2.5),
]
for length in (1, 4096, 4097, 8192, 16384, 1 << 20):
    cases.append(case(f"dynamic4_{length}", 128, 4096, length, rope_type="dynamic", rope_theta=1e4, factor=4.0))
yarn = dict(rope_type="yarn", rope_theta=1e4, factor=16.0, original_max_position_embeddings=4096)
yarn5 = dict(rope_type="yarn", rope_theta=5e5, factor=8.0, original_max_position_embeddings=8192)
cases += [
    case("yarn16", 128, 65536, 65536, **yarn),
    case("yarn16_below", 128, 65536, 100, **yarn),
    case("yarn8_5e5", 128, 65536, 65536, **yarn5),
    case("yarn8_5e5_no_truncate", 128, 65536, 65536, truncate=False, **yarn5),
    case("yarn16_betas", 128, 65536, 65536, beta_fast=64.0, beta_slow=2.0, **yarn),
    case("yarn16_attention_factor", 128, 65536, 65536, attention_factor=1.5, **yarn),
    case("yarn16_mscale", 128, 65536, 65536, mscale=0.707, mscale_all_dim=1.2, **yarn),
    case("yarn16_mscale_alone", 128, 65536, 65536, mscale=0.707, **yarn),
    case("yarn_short_original", 64, 512, 512, rope_type="yarn", rope_theta=1e4, factor=4.0,
         original_max_position_embeddings=128),
    case("yarn_factor_1", 128, 4096, 4096, rope_type="yarn", rope_theta=1e4, factor=1.0,
         original_max_position_embeddings=4096),
]
longrope = dict(rope_type="longrope", rope_theta=1e4, factor=32.0, original_max_position_embeddings=4096,
                short_factor=short, long_factor=ramp)
for length in (1, 4096, 4097, 131072, 1 << 20):
    cases.append(case(f"longrope32_{length}", 128, 131072, length, **longrope))
cases += [
    case("longrope_attention_factor", 128, 131072, 131072, attention_factor=1.25, **longrope),
    case("longrope_no_factor", 128, 131072, 131072,
         **{key: value for key, value in longrope.items() if key != "factor"}),
    case("llama3_8", 128, 131072, 131072, rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0,
         high_freq_factor=4.0, original_max_position_embeddings=8192),
    case("llama3_32_d64", 64, 131072, 131072, rope_type="llama3", rope_theta=5e5, factor=32.0, low_freq_factor=1.0,
         high_freq_factor=4.0, original_max_position_embeddings=8192),
    case("llama3_bands", 128, 65536, 65536, rope_type="llama3", rope_theta=1e4, factor=4.0, low_freq_factor=2.0,
         high_freq_factor=16.0, original_max_position_embeddings=2048),
]
golden = Path(__file__).resolve().parents[2] / "test" / "golden" / "rope.json"
golden.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
