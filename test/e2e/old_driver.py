#!/usr/bin/env python3
"""What the program says and does where a GPU is there and does not suit it, over stand-ins for the driver (for CUDA 12.2, one GPU)
and for LibTorch's CUDA library: it warns once and trains with LibTorch's operations when its kernels do not run, refuses them by
name, refuses two ranks on the one GPU, and never goes to the CPU unasked."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from support.tiny_model import write_tiny_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/longlora"
STAND_INS = ROOT / "build/stand_ins"
REPLACED = "LibTorch's operations are used in place of this program's CUDA kernels"


def train(recipe: pathlib.Path, *words: str, torch: bool = True) -> tuple:
    """Trains on the stand-in GPU, without `torch` with the driver alone; returns the exit code and what was said."""
    stand_ins = recipe.with_name("stand_ins")  # a link: LD_PRELOAD takes a space in the clone's path for the end of a name
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stand_ins)}
    if torch:
        environment["LD_PRELOAD"] = str(stand_ins / "libtorch_cuda.so")
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run([PROGRAM, "train", recipe, *words], env=environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def main() -> None:
    subprocess.run([ROOT / "scripts/build", "release", "longlora_stand_ins"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name)
        (out / "stand_ins").symlink_to(STAND_INS)
        write_tiny_model(out / "tiny")
        (out / "text.jsonl").write_text("".join(json.dumps({"text": f"one line of text, number {i} " * 8}) + "\n" for i in range(40)))
        recipe = out / "recipe.json"
        recipe.write_text(json.dumps({
            "model": {"init": str(out / "tiny"), "dtype": "float32"}, "tune": {"mode": "full"}, "seed": 3,
            "context": {"length": 64}, "attention": {"pattern": "full", "backend": "reference"}, "data": {"train": [str(out / "text.jsonl")]},
            "batch": {"sequences": 2}, "schedule": {"warmup_steps": 0, "steps": 2}, "checkpoint": {"dir": str(out / "run")}}))

        code, said = train(recipe)
        assert code == 0, f"the exit code is {code}\n{said}"
        assert said.count(REPLACED) == 1, said
        if "was built without CUDA kernels" in said:
            assert "CUDACXX" in said, said
        else:
            assert "driver version is insufficient" in said and "the driver is for 12.2: update the driver" in said, said
        losses = [json.loads(line)["loss"] for line in (out / "run/metrics.jsonl").read_text().splitlines()]
        assert len(losses) == 2, said
        print("train:", "".join(said[said.index(REPLACED):].splitlines(keepends=True)[:2]).strip())

        assert train(recipe, "model.device=cpu", f"checkpoint.dir={out / 'cpu'}")[0] == 0
        cpu = [json.loads(line)["loss"] for line in (out / "cpu/metrics.jsonl").read_text().splitlines()]
        assert all(abs(a - b) < 1e-4 * b for a, b in zip(losses, cpu)), f"{losses} on the stand-in, {cpu} on the CPU"

        refused = [  # words, whether LibTorch's stand-in is there, what is said
            (["attention.backend=cuda", f"checkpoint.dir={out / 'no'}"], True, 'attention.backend "cuda" cannot be used here'),
            (["--nproc", "2", f"checkpoint.dir={out / 'no'}"], True, "ranks 0 and 1 have the same GPU (stand-in GPU 0)"),
            ([f"checkpoint.dir={out / 'no'}"], False, "to run on the CPU say so, by model.device=cpu"),
        ]
        for words, torch, expected in refused:
            code, said = train(recipe, *words, torch=torch)
            assert code == 2 and expected in said, f"{words}: exit code {code}\n{said}"
            print(" ".join(words[:-1]) or "no LibTorch for the GPU", ":", next(line for line in said.splitlines() if expected in line))
    print("old driver: one warning and LibTorch's operations; refusals with the reason")


if __name__ == "__main__":
    sys.exit(main())
