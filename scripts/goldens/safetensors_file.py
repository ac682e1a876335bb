"""Writes test/golden/mixed.safetensors with the reference library, and a sharded save by huggingface_hub.

Run by hand in an environment with torch, safetensors and huggingface_hub:
    python scripts/goldens/safetensors_file.py
"""
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "test" / "golden"

tensors = {
    "z.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a.weight": torch.arange(5, dtype=torch.bfloat16),
    "half": torch.arange(4, dtype=torch.float16),
    "ids": torch.arange(3, dtype=torch.int64),
    "flags": torch.tensor([True, False, True]),
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "empty": torch.zeros(0, 7),
    "naïve \"name\"": torch.tensor([7], dtype=torch.uint8),
}
save_file(tensors, GOLDEN / "mixed.safetensors", metadata={"format": "pt"})

# Sizes against a limit of 64 bytes: fits, fits, too big for any shard, does not fit beside the first two, fits.
sharded = {name: torch.full((n,), float(n)) for name, n in [("b", 4), ("a", 8), ("big", 20), ("d", 6), ("c", 3)]}
(GOLDEN / "sharded").mkdir(exist_ok=True)
save_torch_state_dict(sharded, GOLDEN / "sharded", max_shard_size=64)
