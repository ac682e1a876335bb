"""What the demo trains: sizes, and the recipe of each stage. Chosen on the validation split (docs/demo.md)."""
from __future__ import annotations

import dataclasses
import json

EXTENSION = 4  # times the base's context
GROUP = 0.5  # S2 group over the extended context; docs/demo.md says why not the paper's quarter

# The extended models, in the order of the table; TITLES says what each row is.
VARIANTS = ["lora", "longlora", "finish", "full"]
TITLES = {
    "base": "trained from random weights at the short context",
    "pi": "the base with its positions interpolated, not trained further",
    "lora": "LoRA on q, k, v, o; S²-Attn",
    "longlora": "LoRA + embedding + norms; S²-Attn",
    "finish": "as LongLoRA, the last fifth of the steps with full attention",
    "full": "as LongLoRA, with full attention in every step",
}


@dataclasses.dataclass(frozen=True)
class Size:
    summary: str
    model: dict          # config.json keys that differ from recipes/demo/config.json
    context: int         # of the base
    base_rows: int       # rows of `context` tokens a step
    base_steps: int
    base_lr: float
    rows: int            # rows of EXTENSION * context tokens a step
    steps: int
    lr: float
    text_chars: int      # of training text
    windows: int         # held-out windows of 8 * context tokens

    @property
    def contexts(self) -> list[int]:
        return [self.context * times // 2 for times in (1, 2, 4, 8, 16)]

    @property
    def extended(self) -> int:
        return EXTENSION * self.context


SIZES = {
    "quick": Size("a minute on two cores, for tests",
                  dict(hidden_size=128, intermediate_size=344, num_hidden_layers=3, num_attention_heads=4,
                       num_key_value_heads=4, head_dim=32, max_position_embeddings=64),
                  context=64, base_rows=32, base_steps=500, base_lr=4e-3, rows=8, steps=100, lr=3e-3,
                  text_chars=3_000_000, windows=48),
    "compact": Size("0.7 M parameters, 128 to 512 tokens",
                    dict(hidden_size=128, intermediate_size=344, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=4, head_dim=32),
                    context=128, base_rows=32, base_steps=1500, base_lr=4e-3, rows=8, steps=250, lr=3e-3,
                    text_chars=12_000_000, windows=48),
    "small": Size("2 M parameters, 128 to 512 tokens", {},
                  context=128, base_rows=32, base_steps=2000, base_lr=3e-3, rows=8, steps=300, lr=1.5e-3,
                  text_chars=24_000_000, windows=64),
    "medium": Size("29 M parameters, 256 to 1,024 tokens: for a GPU",
                   dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
                        num_key_value_heads=8, head_dim=64, max_position_embeddings=256),
                   context=256, base_rows=64, base_steps=2000, base_lr=1.5e-3, rows=16, steps=300, lr=1e-3,
                   text_chars=40_000_000, windows=64),
}


# Where nobody names a size: the first of these that this machine does in ten minutes (demo_parts/fit.py).
AUTOMATIC = ["small", "compact", "quick"]


def base_recipe(size: Size, folder: str, seed: int) -> dict:
    return {
        "model": {"init": f"{folder}/init"},
        "context": {"length": size.context},
        "attention": {"pattern": "full"},
        "tune": {"mode": "full"},
        "data": {"train": [f"{folder}/text/train.bin"], "valid": [f"{folder}/text/validation.bin"]},
        "batch": {"sequences": size.base_rows, "micro": size.base_rows},
        "optimizer": {"lr": size.base_lr, "weight_decay": 0.1, "betas": [0.9, 0.95]},
        "schedule": {"type": "cosine", "warmup_steps": size.base_steps // 20, "steps": size.base_steps},
        "memory": {"recompute": "nothing"},
        "eval": {"every_steps": size.base_steps // 5, "rows": 64},
        "checkpoint": {"dir": f"{folder}/base", "every_steps": size.base_steps // 4, "keep": 1},
        "log": {"every_steps": 10, "tensorboard": False},
        "seed": seed,
    }


def extension_recipe(size: Size, folder: str, seed: int, name: str) -> dict:
    attention = {"pattern": "full"} if name == "full" else {"pattern": "s2", "group_ratio": GROUP}
    if name == "finish":
        attention["finish"] = 0.2
    return {
        "model": {"path": f"{folder}/base/final"},
        "context": {"length": size.extended, "rope": {"type": "linear", "factor": "auto"}},
        "attention": attention,
        "tune": {"mode": "lora", "rank": 8, "alpha": 16, "also": [] if name == "lora" else ["embed", "norm"]},
        "data": {"train": [f"{folder}/text/train.bin"], "valid": [f"{folder}/text/validation.bin"]},
        "batch": {"sequences": size.rows, "micro": size.rows},
        "optimizer": {"lr": size.lr, "betas": [0.9, 0.95]},
        "schedule": {"type": "linear", "warmup_steps": size.steps // 20, "steps": size.steps},
        "memory": {"recompute": "nothing"},
        "eval": {"every_steps": size.steps // 4, "rows": 16},
        "checkpoint": {"dir": f"{folder}/{name}", "every_steps": size.steps // 2, "keep": 1},
        "log": {"every_steps": 5, "tensorboard": False},
        "seed": seed,
    }


def recipe_text(recipe: dict, name: str, program: str, path: str) -> str:
    """The recipe as a file that opens with the command that runs it."""
    return f"// {program} train {path}\n// The demo's {name}: {TITLES[name]}.\n{json.dumps(recipe, indent=2)}\n"
