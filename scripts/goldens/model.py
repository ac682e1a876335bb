"""Writes the small models, adapters and expected values under test/golden/models (described in its README.md).

Run by hand in an environment with torch 2.11, transformers 5.17, PEFT 0.21 and safetensors:

    python scripts/goldens/model.py [NAME ...]

Everything is seeded; the files in the repository are what this script wrote. The numbers named float32 and bfloat16 are
what transformers and PEFT compute at that precision. The float64 ones are the same modules run in double, with the three
places patched where transformers computes in float32 whatever the model's type is: RMSNorm, the RoPE tables and the
inverse frequencies, which `exact_inv_freq` below takes from the formulas.
"""
import json
import math
import pathlib
import shutil
import sys
import tempfile

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "golden" / "models"
VOCAB, ROWS, LENGTH, PROMPT, NEW = 96, 2, 24, 10, 12
EXACT = torch.float64
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}

COMMON = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=64,
              rms_norm_eps=1e-5, initializer_range=0.25, bos_token_id=1, eos_token_id=2, use_cache=True)
LLAMA, MISTRAL = transformers.LlamaConfig, transformers.MistralConfig
MODELS = {
    # Llama-2: as many KV heads as query heads, embedding and head apart
    "llama": LLAMA(**COMMON, num_attention_heads=4, num_key_value_heads=4),
    # Llama-2-70B: grouped-query attention
    "llama-gqa": LLAMA(**COMMON, num_attention_heads=4, num_key_value_heads=2),
    # Llama-3.2: tied embedding, heads wider than hidden / heads, llama3 RoPE
    "llama3-tied": LLAMA(**COMMON, num_attention_heads=4, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0,
                                          "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                          "original_max_position_embeddings": 16}),
    # Mistral: a sliding window shorter than the sequence
    "mistral": MISTRAL(**COMMON, num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=7),
    # Mistral without a window (v0.2 and later), heads wider than hidden / heads
    "mistral-no-window": MISTRAL(**COMMON, num_attention_heads=4, num_key_value_heads=1, head_dim=12, sliding_window=None,
                                 rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    # Llama-3.1: an embedding and a head apart, theta 5e5, llama3 RoPE
    "llama3": LLAMA(**COMMON, num_attention_heads=4, num_key_value_heads=2,
                    rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8}),
    # biases in the attention projections
    "llama-bias": LLAMA(**COMMON, num_attention_heads=4, num_key_value_heads=2, attention_bias=True),
}
# Folders whose config.json gets the spelling from before transformers 5 (rope_theta and rope_scaling at the top level).
OLD_SPELLING = {"llama", "llama3-tied"}

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
NORMS = ["input_layernorm", "post_attention_layernorm", "norm"]
ADAPTERS = {
    "llama": {
        # what LongLoRA trains: LoRA on the attention, embedding and norms whole
        "longlora": dict(r=4, lora_alpha=8, target_modules=ATTENTION, modules_to_save=["embed_tokens", *NORMS]),
        "all-linear": dict(r=4, lora_alpha=16, target_modules=[*ATTENTION, "gate_proj", "up_proj", "down_proj"]),
    },
    "llama-gqa": {
        "longlora": dict(r=4, lora_alpha=8, target_modules=ATTENTION, modules_to_save=["embed_tokens", *NORMS]),
        "rslora": dict(r=4, lora_alpha=8, target_modules=ATTENTION, use_rslora=True),
    },
    "llama3-tied": {
        # PEFT unties here: the head keeps the base's values and only the embedding changes
        "embed-only": dict(r=4, lora_alpha=8, target_modules=ATTENTION, modules_to_save=["embed_tokens", *NORMS]),
        # the same embedding stored for the head as well: what training the tied weight means
        "embed-and-head": dict(r=4, lora_alpha=8, target_modules=ATTENTION,
                               modules_to_save=["embed_tokens", "lm_head", *NORMS]),
    },
    "llama-bias": {"lora": dict(r=4, lora_alpha=8, target_modules=ATTENTION)},
    "mistral-no-window": {"longlora": dict(r=4, lora_alpha=8, target_modules=ATTENTION,
                                           modules_to_save=["embed_tokens", *NORMS])},
    "llama3": {"dora": dict(r=4, lora_alpha=8, target_modules=[*ATTENTION, "down_proj"], use_dora=True)},
}
# RoPE laws laid over llama-gqa, in transformers' keys; max_position_embeddings is what the law is told to extend.
ROPE_CASES = {
    "linear": (64, dict(rope_type="linear", factor=4.0)),
    "dynamic": (16, dict(rope_type="dynamic", factor=2.0)),
    "yarn": (64, dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama3": (64, dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=16)),
    "longrope": (64, dict(rope_type="longrope", factor=4.0, original_max_position_embeddings=16,
                          short_factor=[1.0, 1.05, 1.1, 1.2], long_factor=[1.0, 1.5, 2.5, 4.0])),
}
GROUP = 8  # S2 group of the gradients named "s2"


def exact_inv_freq(config):
    """Inverse frequencies in double, from the formulas (default, linear and llama3)."""
    rope = config.rope_parameters
    dim = config.head_dim
    inv = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=EXACT) / dim))
    if rope["rope_type"] == "linear":
        return inv / rope["factor"]
    if rope["rope_type"] == "llama3":
        length, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
        wavelength = 2 * math.pi / inv
        smooth = (length / wavelength - low) / (high - low)
        between = (1 - smooth) * inv / rope["factor"] + smooth * inv
        return torch.where(wavelength > length / low, inv / rope["factor"],
                           torch.where(wavelength < length / high, inv, between))
    assert rope["rope_type"] == "default", rope
    return inv


def make_exact(model, config):
    """The model in double, RMSNorm and RoPE included."""
    model = model.double()

    def norm_forward(self, x):
        scale = getattr(self, "weight", None)
        return scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    def rope_forward(self, x, position_ids):
        angles = position_ids[..., None].double() * exact_inv_freq(config)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm_forward.__get__(module)
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = rope_forward.__get__(module)
    return model


def load(folder, dtype, config=None):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, config=config,
                                                                    output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()


def logits_of(model, tokens, mask=None):
    return model(tokens, attention_mask=mask, use_cache=False).logits


def nll_of(logits, tokens):
    """Negative log-likelihood of each next token, [rows, length - 1]: float32 from the logits, float64 where they are."""
    logits = logits if logits.dtype == EXACT else logits.float()
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


def s2_mask(config, length):
    """S2-Attn as an additive mask [1, heads, length, length]: the second half of the heads in groups shifted by G/2,
    the first and last half-groups on their own, nothing wrapped round, halves cut on whole KV heads (on query heads where
    the number of KV heads is odd)."""
    position = torch.arange(length)
    plain, shifted = position // GROUP, (position + GROUP // 2) // GROUP
    causal = position[:, None] >= position[None, :]
    per_kv = config.num_attention_heads // config.num_key_value_heads
    masks = []
    for head in range(config.num_attention_heads):
        even = config.num_key_value_heads % 2 == 0
        first_half = head // per_kv < config.num_key_value_heads // 2 if even else head < config.num_attention_heads // 2
        group = plain if first_half else shifted
        masks.append(causal & (group[:, None] == group[None, :]))
    allowed = torch.stack(masks)[None]
    return torch.zeros(allowed.shape, dtype=EXACT).masked_fill(~allowed, -math.inf)


def write_config(folder, name):
    """config.json without what varies between installs; the older spelling where asked."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if name in OLD_SPELLING:
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_model(name, seed):
    torch.manual_seed(seed)
    folder = OUT / name
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name]).float()
    with torch.no_grad():  # norms and biases away from their initial ones and zeros
        for key, value in model.named_parameters():
            if "norm" in key:
                value.copy_(1 + 0.2 * torch.randn_like(value))
            if key.endswith(".bias"):
                value.copy_(0.3 * torch.randn_like(value))
    model.save_pretrained(folder)
    write_config(folder, name)
    again = load(folder, torch.float32)
    assert again.config.rope_parameters == MODELS[name].rope_parameters, again.config.rope_parameters
    return folder


def write_adapter(folder, name, settings):
    model = load(folder, torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings))
    with torch.no_grad():
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                value.copy_(0.1 * torch.randn_like(value))
            if "modules_to_save" in key:
                value.add_(0.1 * torch.randn_like(value))
        if "lm_head" in settings.get("modules_to_save", []):
            inner = adapted.base_model.model
            inner.lm_head.modules_to_save["default"].weight.copy_(
                inner.model.embed_tokens.modules_to_save["default"].weight)
    with tempfile.TemporaryDirectory() as scratch:
        adapted.save_pretrained(scratch)
        target = folder / f"adapter-{name}"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(pathlib.Path(scratch) / "adapter_model.safetensors", target)
        config = json.loads((pathlib.Path(scratch) / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = folder.name
    config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return target


def with_adapter(folder, adapter, dtype):
    model = load(folder, dtype)
    config = model.config
    adapted = peft.PeftModel.from_pretrained(model, adapter).eval()
    return make_exact(adapted, config) if dtype == EXACT else adapted


class NearTie(Exception):
    """A greedy choice that rounding could turn: another seed is taken."""


def greedy(model, tokens):
    """Greedy continuation of the first PROMPT tokens of row 0; every choice must be clear of rounding."""
    prompt = tokens[:1, :PROMPT]
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=NEW,
                         pad_token_id=0, return_dict_in_generate=True, output_scores=True)
    for score in out.scores:
        best = score[0].topk(2).values
        if best[0] - best[1] < 1e-3:
            raise NearTie
    return out.sequences[0, PROMPT:].tolist()


def gradients(folder, adapter, s2):
    """Loss (mean over the targets of all rows) and gradients in double of everything the adapter trains."""
    model = load(folder, EXACT)
    config = model.config
    adapted = make_exact(peft.PeftModel.from_pretrained(model, adapter, is_trainable=True), config)
    tokens = torch.tensor(json.loads((folder / "expected.json").read_text())["tokens"])
    loss = nll_of(logits_of(adapted, tokens, s2_mask(config, LENGTH) if s2 else None), tokens).mean()
    loss.backward()
    found = {}
    for key, value in adapted.named_parameters():
        if value.requires_grad:
            key = key.replace(".modules_to_save.default", "").replace(".default", "")
            found[key] = value.grad.contiguous()
    assert set(found) == set(load_file(adapter / "adapter_model.safetensors")), "names of the adapter file"
    return loss.item(), found


@torch.no_grad()
def expected_values(name, folder, adapters):
    tokens = torch.randint(3, VOCAB, (ROWS, LENGTH))
    tokens[:, 0] = 1  # BOS
    values = {"tokens": tokens.tolist(), "prompt_tokens": PROMPT, "nll": {}, "greedy": {}}
    logits = {}
    for spelling, dtype in DTYPES.items():
        model = load(folder, dtype)
        config = model.config
        model = make_exact(model, config) if dtype == EXACT else model
        logits[f"base.{spelling}"] = logits_of(model, tokens).contiguous()
        values["nll"][f"base.{spelling}"] = nll_of(logits[f"base.{spelling}"], tokens).tolist()
        if spelling == "float32":
            values["greedy"]["base"] = greedy(model, tokens)
    for adapter in adapters:
        label = adapter.name
        for spelling, dtype in DTYPES.items():
            adapted = with_adapter(folder, adapter, dtype)
            nll = nll_of(logits_of(adapted, tokens), tokens)
            values["nll"][f"{label}.{spelling}"] = nll.tolist()
            if spelling == "float32":
                values["greedy"][label] = greedy(adapted, tokens)
                merged = adapted.merge_and_unload()
                values["nll"][f"{label}.merged.{spelling}"] = nll_of(logits_of(merged, tokens), tokens).tolist()
    check_precisions(name, values["nll"])
    if name == "llama-gqa":
        values["rope"] = {}
        for law, (length, rope) in ROPE_CASES.items():
            config = transformers.AutoConfig.from_pretrained(folder)
            config.max_position_embeddings = length
            config.rope_parameters = {"rope_theta": 10000.0, **rope}
            model = load(folder, torch.float32, config=config)
            values["rope"][law] = {"max_position_embeddings": length, "rope_scaling": rope,
                                   "nll.float32": nll_of(logits_of(model, tokens), tokens).tolist()}
    (folder / "expected.json").write_text(json.dumps(values) + "\n")
    return logits


def check_precisions(name, nll):
    """The precisions must be one computation: a slip in the double patches would show here."""
    for key, value in nll.items():
        label, precision = key.rsplit(".", 1)
        if precision == "float64" or label.endswith(".merged"):
            continue
        error = (torch.tensor(value, dtype=EXACT) - torch.tensor(nll[f"{label}.float64"], dtype=EXACT)).abs().max().item()
        assert error < {"float32": 2e-5, "bfloat16": 0.3}[precision], (name, key, error)
        print(f"  {name:12} {key:26} largest error {error:.2e}")


def write_folder(name, seed):
    shutil.rmtree(OUT / name, ignore_errors=True)
    folder = write_model(name, seed)
    (folder / "generation_config.json").unlink(missing_ok=True)
    adapters = [write_adapter(folder, key, settings) for key, settings in ADAPTERS.get(name, {}).items()]
    tensors = {f"logits.{key}": value for key, value in expected_values(name, folder, adapters).items()}
    if folder / "adapter-longlora" in adapters:
        values = json.loads((folder / "expected.json").read_text())
        values["loss"] = {}
        for label, s2 in (("full", False), (f"s2.{GROUP}", True)):
            values["loss"][label], found = gradients(folder, folder / "adapter-longlora", s2)
            tensors.update({f"grad.{label}.{key}": value for key, value in found.items()})
        (folder / "expected.json").write_text(json.dumps(values) + "\n")
    save_file(tensors, folder / "expected.safetensors")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


def main():
    transformers.utils.logging.set_verbosity_error()
    for name in sys.argv[1:] or MODELS:
        for seed in range(100):
            try:
                write_folder(name, seed)
                break
            except NearTie:
                continue


if __name__ == "__main__":
    main()
