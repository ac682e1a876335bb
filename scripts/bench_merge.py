"""`scripts/bench merge`: base + adapter -> model, `longlora merge` against PEFT's merge_and_unload + save_pretrained and against
`cp -r` of the base, for two sizes of model.

Each run writes to a place where nothing was, the three in turn; merge's files are on the disk when it ends, cp's with sync. Memory is the largest sum of what a process has of its own
(RssAnon, sampled), without pages of mapped files; PEFT's is the same figure of its process. The last column compares the
two merged models: PEFT adds in the base's bfloat16, longlora rounds once. Run as a program by the peer's python
it makes the folders, merges with PEFT, or compares.
"""
from __future__ import annotations

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench_shape
import children

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "build/longlora"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(base: pathlib.Path, out: pathlib.Path, rank: int) -> None:
    """LoRA on every linear layer of the base."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    torch.manual_seed(1)
    tensors = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                if name.split(".")[-2] not in LINEAR:
                    continue
                rows, columns = opened.get_slice(name).get_shape()
                module = "base_model.model." + name.removesuffix(".weight")
                tensors[f"{module}.lora_A.weight"] = torch.randn(rank, columns) * 0.02
                tensors[f"{module}.lora_B.weight"] = torch.randn(rows, rank) * 0.02
    out.mkdir()
    save_file(tensors, out / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "target_modules": LINEAR,
              "bias": "none", "base_model_name_or_path": str(base)}
    (out / "adapter_config.json").write_text(json.dumps(config))


def peer(base: pathlib.Path, adapter: pathlib.Path, out: pathlib.Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)


def compare(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    """Elements that are not the same bfloat16, and the largest difference in units of the tensor's largest element."""
    import torch
    from safetensors import safe_open

    def tensors(folder: pathlib.Path) -> dict:
        return {name: file for file in folder.glob("*.safetensors") for name in safe_open(file, "pt").keys()}
    first, second = tensors(ours), tensors(theirs)
    assert first.keys() == second.keys(), first.keys() ^ second.keys()
    count = differ = 0
    largest = 0.0
    for name, file in first.items():
        a, b = safe_open(file, "pt").get_tensor(name), safe_open(second[name], "pt").get_tensor(name)
        count, differ = count + a.numel(), differ + int((a != b).sum())
        largest = max(largest, float((a.float() - b.float()).abs().max() / a.float().abs().max()))
    print(json.dumps({"differ": differ / count, "largest": largest}))


def run(command: list) -> tuple[float, float]:
    """Seconds and the most memory of its own, in bytes."""
    start, peak = time.perf_counter(), 0
    with children.started([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        status = pathlib.Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            try:
                lines = [line.split() for line in status.read_text().splitlines() if line.startswith("RssAnon")]
                peak = max([peak, *(int(line[1]) * 1024 for line in lines)])
            except (OSError, ValueError):
                break
            time.sleep(0.01)
        errors = process.communicate()[1]
    if process.returncode != 0:
        sys.exit(f"bench: this failed: {command}\n{errors[-2000:]}")
    return time.perf_counter() - start, peak


def bench(arguments) -> int:
    print(f"{'layers':>6} {'weights':>9} {'longlora':>19} {'PEFT':>19} {'cp -r, + sync':>15} {'merge / those':>14}   elements that differ from PEFT's")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for layers in arguments.layers:
            work = pathlib.Path(folder) / str(layers)
            base, adapter = work / "base", work / "adapter"
            bench_shape.write_model(base, bench_shape.config(hidden=2048, layers=layers, heads=16, mlp=5632, vocabulary=32000))
            size = (base / "model.safetensors").stat().st_size
            own = [arguments.peer_python, "-W", "ignore", __file__]
            children.run([*own, "make", base, adapter, str(arguments.rank)], check=True)
            ours, theirs, copies = [], [], []
            for _ in range(arguments.rounds):
                for name in ("ours", "theirs", "copy"):
                    shutil.rmtree(work / name, ignore_errors=True)
                os.sync()
                ours.append(run([PROGRAM, "merge", "--no-verify", "--model", base, "--adapter", adapter, "--out", work / "ours"]))
                os.sync()
                copied = run(["cp", "-r", base, work / "copy"])[0]
                copies.append((copied, copied + run(["sync", work / "copy/model.safetensors"])[0]))
                theirs.append(run([*own, "peer", base, adapter, work / "theirs"]))
            output = children.run([*own, "compare", work / "ours", work / "theirs"], check=True, text=True, stdout=subprocess.PIPE)
            same = json.loads(output.stdout)
            shutil.rmtree(work)

            def cell(runs: list) -> str:
                return f"{statistics.median(r[0] for r in runs):7.1f} s {max(r[1] for r in runs) / 1e9:6.2f} GB"
            cached, synced = (statistics.median(c[i] for c in copies) for i in (0, 1))
            ratios = [statistics.median(o[0] / c[i] for o, c in zip(ours, copies)) for i in (0, 1)]
            print(f"{layers:6} {size / 1e9:6.2f} GB {cell(ours):>19} {cell(theirs):>19} {cached:4.1f} s, {synced:4.1f} s {ratios[0]:8.2f}, "
                  f"{ratios[1]:.2f}   "
                  f"{same['differ']:.2%}, largest {same['largest']:.1e} of the tensor's largest", flush=True)
    return 0


if __name__ == "__main__":
    paths = [pathlib.Path(word) for word in sys.argv[2:]]
    if sys.argv[1] == "make":
        make_adapter(paths[0], paths[1], int(sys.argv[4]))
    elif sys.argv[1] == "peer":
        peer(*paths)
    else:
        compare(*paths)
