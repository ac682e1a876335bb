#!/usr/bin/env python3
"""Stopped by a signal, killed at any moment, or out of disk space, and resumed, a run ends with the weights and the log of
one that was never stopped: bit for bit, for training from random weights and for LoRA + embedding + norms. And a finished
run's folder is not run into again."""
import json
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from support.tiny_model import write_tiny_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/longlora"


def run(recipe: dict, folder: pathlib.Path, *flags: str, stop_after: int = 0) -> int:
    """Trains; with `stop_after`, sends SIGTERM once that many steps are in the log. Returns the exit code."""
    recipe = json.loads(json.dumps(recipe).replace("@DIR@", str(folder)))
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(recipe))
    process = subprocess.Popen([PROGRAM, "train", path, *flags], stderr=subprocess.DEVNULL)
    log = folder / "metrics.jsonl"
    while stop_after and process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= stop_after:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.001)
    return process.wait()


def stopped(recipe: dict, folder: pathlib.Path, after: int) -> int:
    """`run` with SIGTERM after that many steps; once more from the start where the run was over before the signal came."""
    for _ in range(20):
        code = run(recipe, folder, stop_after=after)
        if code != 0:
            break
        shutil.rmtree(folder)
    return code


def log_of(folder: pathlib.Path) -> list:
    """What the log says of each step, without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_s", "memory_bytes")} for line in lines]


def compare(name: str, recipe: dict, out: pathlib.Path, weights: str, stop_after: int) -> None:
    whole, parts = out / f"{name}-whole", out / f"{name}-parts"
    assert run(recipe, whole) == 0
    code = stopped(recipe, parts, stop_after)
    assert code == 75, f"{name}: stopped by a signal, the exit code is {code}"
    assert not (parts / "final").exists()
    assert run(recipe, parts, "--resume") == 0
    same = (whole / "final" / weights).read_bytes() == (parts / "final" / weights).read_bytes()
    assert same, f"{name}: the resumed run's weights differ"
    assert log_of(whole) == log_of(parts), f"{name}: the resumed run's log differs"
    assert run(recipe, whole) == 2, f"{name}: a finished run's folder was run into again"
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert run(recipe, whole, "--resume") == 0, f"{name}: a finished run with --resume is no success"
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}, f"{name}: a finished run was touched"
    longer = {**recipe, "schedule": {**recipe["schedule"], "steps": recipe["schedule"]["steps"] + 1}}
    assert run(longer, whole, "--resume") == 2, f"{name}: a finished run was lengthened in silence"


def resume_keeps_how_it_computed(recipe: dict, out: pathlib.Path) -> None:
    """A resumed run goes on in the dtype and with the products that it began with, whatever this machine would choose now."""
    init, parts = out / "init-float32", out / "computed"
    write_tiny_model(init, torch_dtype="float32")
    recipe = {**recipe, "model": {"init": str(init), "dtype": "bfloat16"}}
    assert stopped(recipe, parts, 8) == 75
    for state in parts.glob("step-*/state.json"):
        text = state.read_text()
        other = text.replace("bfloat16 native", "@").replace("bfloat16 float32-tiles", "bfloat16 native")
        state.write_text(other.replace("@", "bfloat16 float32-tiles"))
        began = json.loads(state.read_text())["compute"].rsplit(" ", 1)[0]
    for dtype in ("float32", "stored"):
        different = {**recipe, "model": {**recipe["model"], "dtype": dtype}}
        assert run(different, parts, "--resume") == 2, f"resumed as {dtype}"
    assert run({**recipe, "model": {**recipe["model"], "dtype": "auto"}}, parts, "--resume") == 0
    newest = max(parts.glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))
    assert json.loads((newest / "state.json").read_text())["compute"].rsplit(" ", 1)[0] == began


def kill_often(recipe: dict, whole: pathlib.Path, parts: pathlib.Path, weights: str, seed: int) -> None:
    """SIGKILL at random moments, in the middle of a step or of a checkpoint, until the run has come to its end."""
    moments = random.Random(seed)
    recipe = json.loads(json.dumps(recipe).replace("@DIR@", str(parts)))
    recipe["checkpoint"].update(every_steps=1)
    path = parts.with_suffix(".json")
    path.write_text(json.dumps(recipe))
    def newest() -> int:
        return max((int(folder.name.removeprefix("step-")) for folder in parts.glob("step-*")), default=0)

    kills, lives = 0, 0
    while kills < 4 or not (parts / "final").exists():
        assert lives < 200, f"seed {seed}: {lives} lives, {kills} kills"
        if (parts / "final").exists():  # it was over before it was killed four times: once more
            shutil.rmtree(parts)
        complete = list(parts.glob("step-*"))
        assert all((folder / "state.json").exists() for folder in complete), f"seed {seed}: {complete}"
        if not complete and parts.exists():
            shutil.rmtree(parts)
        process = subprocess.Popen([PROGRAM, "train", path, *(["--resume"] if complete else [])], stderr=subprocess.DEVNULL)
        lives += 1
        # Counted in steps, so that a fast machine is killed as often as a slow one; each life gets a step further at least.
        until = newest() + moments.randint(1, 9)
        while process.poll() is None and newest() < until:
            time.sleep(0.001)
        try:
            assert process.wait(moments.uniform(0, 0.05)) == 0, f"seed {seed}: after {kills} kills"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    same = (whole / "final" / weights).read_bytes() == (parts / "final" / weights).read_bytes()
    assert same and log_of(whole) == log_of(parts), f"seed {seed}: differs after {kills} kills"
    print(f"killed {kills} times (seed {seed}): same weights, same log")


def fill_disk(recipe: dict, whole: pathlib.Path, parts: pathlib.Path, weights: str) -> None:
    """Checkpoints larger than what is left: the run ends in an error, what was complete stays, a resumed one is the same."""
    assert stopped(recipe, parts, 5) == 75
    before = sorted(p.name for p in parts.glob("step-*"))
    limit = (parts / before[-1] / "optimizer.safetensors").stat().st_size - 1000

    def little_space() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    failed = subprocess.run([PROGRAM, "train", parts.with_suffix(".json"), "--resume"], capture_output=True, text=True,
                            preexec_fn=little_space)
    assert failed.returncode == 1 and "optimizer.safetensors" in failed.stderr, failed
    assert sorted(p.name for p in parts.iterdir() if "step-" in p.name) == before, list(parts.iterdir())
    assert run(recipe, parts, "--resume") == 0
    same = (whole / "final" / weights).read_bytes() == (parts / "final" / weights).read_bytes()
    assert same and log_of(whole) == log_of(parts), "differs after a full disk"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        words = random.Random(1)
        text = " ".join(words.choice("alpha beta gamma delta epsilon zeta eta theta".split()) for _ in range(20000))
        (out / "text.txt").write_text(text)
        init = out / "init"
        write_tiny_model(init)
        common = {"data": {"train": [str(out / "text.txt")], "valid": [str(out / "text.txt")]},
                  "batch": {"sequences": 4, "micro": 2}, "eval": {"every_steps": 4, "rows": 4}, "seed": 3}
        schedule = {"type": "cosine", "warmup_steps": 2, "steps": 40}
        base = {**common, "model": {"init": str(init)}, "context": {"length": 64}, "attention": {"pattern": "full"},
                "tune": {"mode": "full"}, "optimizer": {"lr": 1e-3}, "schedule": schedule,
                "checkpoint": {"dir": "@DIR@", "every_steps": 7}}
        compare("full", base, out, "model.safetensors", 10)
        lora = {**common, "model": {"path": str(out / "full-whole/final")},
                "context": {"length": 256, "rope": {"type": "linear"}}, "tune": {"rank": 4, "alpha": 8, "dropout": 0.1},
                "attention": {"finish": 0.5}, "optimizer": {"lr": 1e-3}, "schedule": schedule,
                "checkpoint": {"dir": "@DIR@", "every_steps": 9}}
        compare("lora", lora, out, "adapter_model.safetensors", 25)
        resume_keeps_how_it_computed(base, out)
        kill_often(lora, out / "lora-whole", out / "lora-killed", "adapter_model.safetensors", random.randrange(10**6))
        fill_disk(lora, out / "lora-whole", out / "lora-full-disk", "adapter_model.safetensors")
    print("resume: passed")


if __name__ == "__main__":
    sys.exit(main())
