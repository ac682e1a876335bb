"""`scripts/bench machine`: training on this machine's CPU under each instruction set it has, in float32 and bfloat16, next to
transformers + PEFT in the dtype that is faster for it, and next to the matrix products of the same step run alone.

Shapes: the demo's base model trained from random weights (32 rows of 128 tokens, everything trained), and the peer shape of
`scripts/bench train` (768 wide, 12 layers, S²-Attn LoRA + embedding + norms) at 2,048 and 4,096 tokens. One round runs every
combination once, in turn; figures are medians over the rounds.
"""
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import bench_shape

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "build/longlora"
PRODUCTS = ROOT / "build/longlora_cpu_products_bench"

# Names for --isa, what the processor must have for it, and the libraries' own variables (core/base/isa.cpp), for the peer.
SETS = {"avx2": ("avx2", ("avx2", "AVX2", "AVX2")),
        "avx512": ("avx512_bf16", ("avx512", "AVX512_CORE_BF16", "AVX512")),
        "amx": ("amx_bf16", ("avx512", "AVX512_CORE_AMX", "AVX512_E4")),
        "all": ("", None)}


def sets_here() -> list[str]:
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    here = [name for name, (flag, _) in SETS.items() if flag in flags]
    nameless = not here or ("avx512f" in flags and "avx512_bf16" not in flags)  # more than the largest set with a name
    return here + ["all"] * nameless


def environment(name: str) -> dict:
    values = SETS[name][1]
    variables = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    return {**os.environ, **(dict(zip(variables, values)) if values else {})}


class Shape:
    def __init__(self, title, config, rows, length, full, pattern, steps):
        self.title, self.config, self.rows, self.length = title, config, rows, length
        self.full, self.pattern, self.steps = full, pattern, steps

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def recipe(self, work: pathlib.Path, dtype: str) -> dict:
        return {"model": {"path": str(work / "model"), "dtype": dtype, "device": "cpu"}, "context": {"length": self.length},
                "attention": {"pattern": self.pattern, **({"group_ratio": 0.25} if self.pattern == "s2" else {})},
                "tune": {"mode": "full"} if self.full else {"mode": "lora", "rank": 8, "alpha": 16, "also": ["embed", "norm"]},
                "data": {"train": [str(work / "tokens.bin")], "shuffle": False},
                "batch": {"sequences": self.rows, "micro": self.rows},
                "schedule": {"warmup_steps": 0, "steps": self.steps},
                "memory": {"recompute": "nothing" if self.full else "auto"},
                "checkpoint": {"dir": str(work / "ours"), "every_steps": 0}, "log": {"tensorboard": False}}

    def products(self) -> list[tuple[int, int, int, float]]:
        """(rows, in, out, passes) of the large products of a step: forward, input gradient, and the weight's where trained."""
        c, passes = self.config, 3 if self.full else 2
        hidden, mlp = c["hidden_size"], c["intermediate_size"]
        wide = c["num_attention_heads"] * c["head_dim"]
        layers = [(hidden, 3 * wide), (wide, hidden), (hidden, 2 * mlp), (mlp, hidden)]
        return [(self.tokens, i, o, passes * c["num_hidden_layers"]) for i, o in layers] + [
            (min(self.tokens, 2048), hidden, c["vocab_size"], passes * max(1, self.tokens / 2048))]


def shapes(lengths: list[int]) -> list[Shape]:
    demo = json.loads((ROOT / "recipes/demo/config.json").read_text())
    peer = bench_shape.config(context=max(4096, *lengths))
    return [Shape("demo base", demo, 32, 128, True, "full", 12),
            *[Shape(f"peer {length}", peer, 1, length, False, "s2", 3) for length in lengths]]


def ours(shape: Shape, work: pathlib.Path, isa: str, dtype: str, run) -> tuple[float, float]:
    shutil.rmtree(work / "ours", ignore_errors=True)
    (work / "recipe.json").write_text(json.dumps(shape.recipe(work, dtype)))
    limit = [] if isa == "all" else ["--isa", isa]
    _, peak = run([str(PROGRAM), *limit, "train", str(work / "recipe.json")], work / "log")
    lines = [json.loads(line) for line in (work / "ours/metrics.jsonl").read_text().splitlines()]
    return statistics.median(line["tokens_per_s"] for line in lines[1:]), peak


def peer(shape: Shape, work: pathlib.Path, isa: str, dtype: str, python: str, run) -> tuple[float, float]:
    command = [python, str(ROOT / "scripts/bench_train_peer.py"), "--model", str(work / "model"), "--data",
               str(work / "tokens.bin"), "--length", str(shape.length), "--rows", str(shape.rows), "--steps", str(shape.steps),
               "--pattern", shape.pattern, "--dtype", dtype, *(["--full"] if shape.full else [])]
    output, peak = run(command, work / "log", env=environment(isa))
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return statistics.median(shape.tokens / line["seconds"] for line in lines[1:]), peak


def products(shape: Shape, work: pathlib.Path, isa: str, dtype: str, run) -> float:
    """Tokens/s of a step that were its large products alone, each at its own measured rate."""
    wanted = shape.products()
    words = [f"{rows}:{i}:{o}" for rows, i, o, _ in wanted]
    output, _ = run([str(PRODUCTS), dtype, *words], work / "log", env=environment(isa))
    rates = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    seconds = 0.0
    for (rows, i, o, passes), rate in zip(wanted, rates):
        kinds = ["forward", "input_gradient", "weight_gradient"][:3 if shape.full else 2]
        seconds += sum(passes / len(kinds) * 2 * rows * i * o / rate[kind] for kind in kinds)
    return shape.tokens / seconds


def bench(arguments, run) -> int:
    if not PRODUCTS.exists():
        sys.exit("bench: scripts/build release longlora_cpu_products_bench comes first")
    isas = arguments.isa or sets_here()
    report = {"date": time.strftime("%Y-%m-%d"), "sets": isas, "rows": []}
    print(f"{'':10} {'set':7} {'dtype':9} {'longlora':>22} {'transformers + PEFT':>32} {'speed':>6} {'memory':>7} "
          f"{'products alone':>15} {'reached':>8}")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for shape in shapes(arguments.lengths):
            shutil.rmtree(work / "model", ignore_errors=True)
            bench_shape.write_model(work / "model", shape.config)
            bench_shape.write_tokens(work / "tokens.bin", shape.tokens * (shape.steps + 1), shape.config["vocab_size"])
            for isa in isas:
                dtypes = ["float32", "bfloat16"]
                mine = {dtype: [] for dtype in dtypes}
                theirs = {dtype: [] for dtype in (["float32"] if isa == "avx2" else dtypes)}  # bfloat16: slow loops there
                alone = {dtype: [] for dtype in dtypes}
                for _ in range(arguments.rounds):
                    for dtype in dtypes:
                        alone[dtype].append(products(shape, work, isa, dtype, run))
                        mine[dtype].append(ours(shape, work, isa, dtype, run))
                    for dtype in theirs if arguments.peer_python else []:
                        theirs[dtype].append(peer(shape, work, isa, dtype, arguments.peer_python, run))
                best = max((dtype for dtype in theirs if theirs[dtype]), key=lambda d: statistics.median(r for r, _ in theirs[d]),
                           default=None)
                for dtype in dtypes:
                    report["rows"].append(row(shape, isa, dtype, mine[dtype], best, theirs.get(best, []), alone[dtype]))
                    print_row(report["rows"][-1])
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0


def row(shape, isa, dtype, mine, best, theirs, alone) -> dict:
    median = statistics.median
    r = {"shape": shape.title, "set": isa, "dtype": dtype, "tokens_per_s": median(rate for rate, _ in mine),
         "peak_gb": max(peak for _, peak in mine) / 1e9, "products_tokens_per_s": median(alone)}
    if theirs:
        r["peer"] = {"dtype": best, "tokens_per_s": median(rate for rate, _ in theirs),
                     "peak_gb": max(peak for _, peak in theirs) / 1e9}
    return r


def print_row(r: dict) -> None:
    p = r.get("peer")
    theirs = f"{p['tokens_per_s']:8.0f} tok/s {p['peak_gb']:5.2f} GB {p['dtype']:>8}" if p else "-"
    speed = f"{r['tokens_per_s'] / p['tokens_per_s']:.2f}x" if p else "-"
    memory = f"{r['peak_gb'] / p['peak_gb']:.2f}x" if p else "-"
    print(f"{r['shape']:10} {r['set']:7} {r['dtype']:9} {r['tokens_per_s']:8.0f} tok/s {r['peak_gb']:5.2f} GB {theirs:>32} {speed:>6} "
          f"{memory:>7} {r['products_tokens_per_s']:9.0f} tok/s {100 * r['tokens_per_s'] / r['products_tokens_per_s']:6.0f} %",
          flush=True)
