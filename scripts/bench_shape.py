"""The model, tokens and work of `scripts/bench train`: a random Llama folder, random tokens, FLOPs of a step."""
import array
import json
import pathlib
import random
import struct


def config(hidden=768, layers=12, heads=12, mlp=2048, vocabulary=32000, context=4096):
    """config.json of a Llama with as many KV heads as heads."""
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden,
            "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": heads, "head_dim": hidden // heads, "hidden_act": "silu",
            "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
            "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
            "torch_dtype": "bfloat16"}


SHAPES = {"small": {}, "7b": {"hidden": 4096, "layers": 32, "heads": 32, "mlp": 11008}}


def tensors(c):
    """(name, shape) of the weights."""
    hidden, mlp, vocabulary = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            yield f"{prefix}self_attn.{name}_proj.weight", (hidden, hidden)
        yield f"{prefix}mlp.gate_proj.weight", (mlp, hidden)
        yield f"{prefix}mlp.up_proj.weight", (mlp, hidden)
        yield f"{prefix}mlp.down_proj.weight", (hidden, mlp)
        yield f"{prefix}input_layernorm.weight", (hidden,)
        yield f"{prefix}post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def random_bfloat16(count, generator):
    """Little-endian bfloat16 of random sign and a size between 2⁻⁷ and 2⁻⁵: about the spread of initial weights."""
    sign = bytes(0x3C | (byte & 0x80) for byte in range(256))
    out = bytearray(2 * count)
    out[0::2] = generator.randbytes(count)
    out[1::2] = generator.randbytes(count).translate(sign)
    return out


def write_model(folder: pathlib.Path, c) -> None:
    """A model folder with one bfloat16 safetensors file, always the same for the same config; norms are 1."""
    generator = random.Random(1)
    shapes = list(tensors(c))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes:
        size = 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, shape in shapes:
            if len(shape) == 1:
                file.write(b"\x80\x3f" * shape[0])
            else:
                for first in range(0, shape[0], 4096):  # a piece of the rows at a time
                    file.write(random_bfloat16(min(4096, shape[0] - first) * shape[1], generator))
    (folder / "config.json").write_text(json.dumps(c, indent=2) + "\n")


def write_tokens(path: pathlib.Path, count: int, vocabulary: int) -> None:
    """A flat uint16 token file of random ids."""
    generator = random.Random(2)
    path.write_bytes(array.array("H", generator.choices(range(3, vocabulary), k=count)).tobytes())


def step_flops(c, length: int, group: int, rank: int = 8) -> float:
    """The FLOPs that one training step on one row needs, with nothing recomputed: frozen linears forward and the
    gradient of their inputs, LoRA on q, k, v, o with its gradients, the head, causal attention inside groups of `group`
    tokens (backward 2.5 times the forward). Embedding and norms are left out; they multiply next to nothing."""
    hidden, mlp, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    linear = layers * (4 * hidden * hidden + 3 * hidden * mlp) + c["vocab_size"] * hidden
    lora = layers * 4 * 2 * hidden * rank
    attention = layers * 4 * hidden * (group + 1) / 2  # QKᵀ and PV over (group + 1) / 2 keys on average
    return length * (4 * linear + 6 * lora + 3.5 * attention)
