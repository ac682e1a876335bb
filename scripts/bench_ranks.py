"""`scripts/bench ranks`: tokens a second of the same recipe on one and on two ranks of this machine, in turn.

One rank with all cores and two ranks with half of them each have the same processors: the ratio is what being two costs
(sums of gradients, exchanged keys and values, gathered weights) or gains. One rank with half of the cores says how far two
ranks are from twice as fast.
"""
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

# what, ranks, share of the cores of a rank, keys of the recipe
WAYS = [
    ("1 rank, half the cores", 1, 0.5, []),
    ("1 rank, all cores", 1, 1.0, []),
    ("2 ranks, rows shared", 2, 0.5, []),
    ("2 ranks, optimizer cut up", 2, 0.5, ["parallel.shard=optimizer"]),
    ("2 ranks, model cut up", 2, 0.5, ["parallel.shard=model"]),
    ("2 ranks, each row shared", 2, 0.5, ["parallel.sequence=2"]),
]


def recipe(work, length, steps):
    return {"model": {"path": str(work / "model"), "dtype": "bfloat16", "device": "cpu"}, "context": {"length": length},
            "attention": {"pattern": "s2", "group_ratio": 0.25}, "tune": {"mode": "lora", "rank": 8, "alpha": 16},
            "data": {"train": [str(work / "tokens.bin")], "shuffle": False}, "batch": {"sequences": 2, "micro": 1},
            "schedule": {"warmup_steps": 0, "steps": steps}, "checkpoint": {"dir": str(work / "run"), "every_steps": 0},
            "log": {"tensorboard": False}}


def tokens_per_s(work, ranks, threads, keys):
    """Of every step but the first."""
    shutil.rmtree(work / "run", ignore_errors=True)
    command = [PROGRAM, "train", work / "recipe.json", *keys, *(["--nproc", str(ranks)] if ranks > 1 else [])]
    done = children.run(command, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"})
    if done.returncode != 0:
        sys.exit(f"bench: this failed (exit {done.returncode}): {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (work / "run/metrics.jsonl").read_text().splitlines()]
    return [line["tokens_per_s"] for line in lines[1:]], lines[0]["loss"]


def bench(arguments):
    cores = len(os.sched_getaffinity(0))
    speeds, losses = {name: [] for name, *_ in WAYS}, {}
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        config = bench_shape.config(context=arguments.length)
        bench_shape.write_model(work / "model", config)
        bench_shape.write_tokens(work / "tokens.bin", 2 * arguments.length * (arguments.steps + 1), config["vocab_size"])
        (work / "recipe.json").write_text(json.dumps(recipe(work, arguments.length, arguments.steps)))
        print(f"{cores} cores, {time.strftime('%Y-%m-%d')}; 768 wide, 12 layers, bfloat16, LoRA + embedding + norms, S2, two rows "
              f"of {arguments.length} tokens a step; {arguments.rounds} runs of {arguments.steps} steps each, in turn\n")
        for _ in range(arguments.rounds):
            for name, ranks, share, keys in WAYS:
                measured, losses[name] = tokens_per_s(work, ranks, max(1, round(share * cores)), keys)
                speeds[name] += measured
    half, whole = (statistics.median(speeds[name]) for name, *_ in WAYS[:2])
    print(f"{'':28} {'tokens/s':>9} {'of one rank, half':>18} {'of one rank, all':>17}")
    for name, *_ in WAYS:
        median = statistics.median(speeds[name])
        print(f"{name:28} {median:9.0f} {median / half:17.2f}x {median / whole:16.2f}x")
    spread = max(losses.values()) - min(losses.values())
    print(f"\nlosses of the first step: {min(losses.values()):.5f} to {max(losses.values()):.5f}")
    return 0 if spread < 0.01 else sys.exit("bench: the losses differ: the ways did not compute the same")
