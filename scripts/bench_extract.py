"""`scripts/bench extract`: a fine-tune's change as LoRA, `longlora extract-lora` against full SVD (torch.linalg.svd), the code
path of mergekit-extract-lora (mergekit/scripts/extract_lora.py: difference, svd in float32, sqrt(S) to both factors).

Both read the same two folders with the four attention matrices of one layer, half of them changed with a flat spectrum
(random numbers), half with a falling one (1/i). longlora's time is that of the whole process, reading, checking and writing
included; the peer's is that of its difference and SVD alone. Run as a program by the peer's python it makes the folders and
measures the peer.
"""
from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import bench_shape
import children

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "build/longlora"
NAMES = [f"model.layers.0.self_attn.{name}_proj.weight" for name in "qkvo"]


def make(work: pathlib.Path) -> None:
    """`tuned` beside `base`: the same but for the attention matrices."""
    import torch
    from safetensors.torch import load_file, save_file
    torch.manual_seed(1)
    tensors = load_file(work / "base/model.safetensors")
    for i, name in enumerate(NAMES):
        size = tensors[name].shape[0]
        change = torch.randn(size, size) / size**0.5
        if i % 2:
            left, right = torch.linalg.qr(change).Q, torch.linalg.qr(torch.randn(size, size)).Q
            change = (left / torch.arange(1, size + 1)) @ right.T
        tensors[name] = tensors[name].float() + change
    (work / "tuned").mkdir()
    save_file(tensors, work / "tuned/model.safetensors", {"format": "pt"})
    (work / "tuned/config.json").write_text((work / "base/config.json").read_text())


def peer(work: pathlib.Path, rank: int, threads: int) -> None:
    import torch
    from safetensors.torch import load_file
    torch.set_num_threads(threads)
    base, tuned = load_file(work / "base/model.safetensors"), load_file(work / "tuned/model.safetensors")
    for name in NAMES:
        start = time.perf_counter()
        change = tuned[name].float() - base[name].float()
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        root = s[:rank].sqrt()
        b, a = u[:, :rank] * root, root[:, None] * v[:rank]
        seconds = time.perf_counter() - start
        residual = (torch.linalg.norm((change - b @ a).double()) / torch.linalg.norm(change.double())).item()
        print(json.dumps({"module": name.removesuffix(".weight"), "seconds": seconds, "residual": residual}))


def bench(arguments) -> int:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        bench_shape.write_model(work / "base", bench_shape.config(hidden=arguments.size, layers=1, heads=arguments.size // 128,
                                                                  mlp=128, vocabulary=128))
        own = [arguments.peer_python, "-W", "ignore", __file__]
        children.run([*own, "make", work], check=True)
        ours, theirs, residuals = [], [], {}
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            children.run([PROGRAM, "extract-lora", "--base", work / "base", "--tuned", work / "tuned", "--out", work / "out",
                            "--rank", str(arguments.rank), "--overwrite", "--json", work / "table.json"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ours.append((time.perf_counter() - start) / len(NAMES))
            output = children.run([*own, "peer", work, str(arguments.rank), str(threads)], check=True, text=True,
                                    stdout=subprocess.PIPE).stdout
            lines = [json.loads(line) for line in output.splitlines()]
            theirs.append(sum(line["seconds"] for line in lines) / len(NAMES))
            residuals = {line["module"]: line["residual"] for line in lines}
        table = {row["module"]: row["residual"] for row in json.loads((work / "table.json").read_text())["matrices"]}
    print(f"{arguments.size} x {arguments.size}, rank {arguments.rank}, {threads} threads; seconds a matrix, medians of "
          f"{arguments.rounds} runs\n")
    print(f"longlora {statistics.median(ours):.3f}   full SVD {statistics.median(theirs):.3f}   "
          f"{statistics.median(theirs) / statistics.median(ours):.1f}x\n\n{'residual':36} {'longlora':>9} {'optimal':>9} {'ratio':>9}")
    for module, best in residuals.items():
        print(f"{module:36} {table[module]:9.6f} {best:9.6f} {table[module] / best:9.6f}")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(pathlib.Path(sys.argv[2]))
    else:
        peer(pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
