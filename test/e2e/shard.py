#!/usr/bin/env python3
"""What is cut up over the ranks (parallel.shard) gives what one rank gives: optimizer and model, LoRA and full, on 2, 3 and 4
ranks, also where two share every row, as near as one rank is to itself with other micro-batches (times 3); the same run again gives the same bits. Killed at
random steps, a run goes on on another number of ranks, cut up in another way."""
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

from ranks import FLOAT32, check_near, check_same, distance, pids, recipes, run, start, wait_for_step


def sharded(recipe: dict, shard: str, sequence: int = 1) -> dict:
    return {**recipe, "parallel": {"shard": shard, "sequence": sequence}}


def compare(name: str, recipe: dict, out: pathlib.Path, seed: int) -> pathlib.Path:
    whole = run(recipe, out / f"{name}-1", 1)
    other = json.loads(json.dumps(recipe))
    other["batch"]["micro"] = 4 // recipe["batch"]["micro"]
    allowed = tuple(3 * max(value, FLOAT32) for value in distance(run(other, out / f"{name}-micro", 1), whole))
    for shard in ("optimizer", "model"):
        for ranks in (2, 3, 4):
            folder = run(sharded(recipe, shard), out / f"{name}-{shard}-{ranks}", ranks)
            check_near(f"{name}, {shard}, {ranks} ranks", folder, whole, allowed)
        check_same(run(sharded(recipe, shard), out / f"{name}-{shard}-again", 3), out / f"{name}-{shard}-3")
        folder = run(sharded(recipe, shard, 2), out / f"{name}-{shard}-4-2", 4)
        check_near(f"{name}, {shard}, 4 ranks, 2 a row", folder, whole, allowed)
    change(name, recipe, out / f"{name}-killed", whole, allowed, seed)
    return whole


def change(name: str, recipe: dict, folder: pathlib.Path, whole: pathlib.Path, allowed: tuple, seed: int) -> None:
    """A rank is killed in each life but the last; every life has other ranks and is cut up in another way."""
    chance, steps, lives = random.Random(seed), recipe["schedule"]["steps"], []
    ways = [(4, "model"), (1, "none"), (3, "optimizer"), (2, "model"), (2, "none"), (1, "model")]
    for attempt in range(20):
        saved = [int(step.name.removeprefix("step-")) for step in folder.glob("step-*")]
        if not saved and folder.exists():
            shutil.rmtree(folder)
        ranks, shard = chance.choice([way for way in ways if not lives or way != lives[-1]])
        lives.append((ranks, shard))
        process = start(sharded(recipe, shard), folder, ranks, *(["--resume"] if saved else []))
        stop = max(saved, default=0) + chance.randint(2, 3)
        if stop < steps and wait_for_step(process, folder, stop):
            time.sleep(chance.uniform(0, 0.03))
            try:
                os.kill(pids(process)[chance.randrange(ranks)] if ranks > 1 else process.pid, signal.SIGKILL)
            except (KeyError, ProcessLookupError):
                pass  # it was over before
        errors = process.communicate()[1]
        if process.returncode == 0:
            break
        assert process.returncode in (1, -signal.SIGKILL), f"seed {seed}, {lives}: {errors}"
    assert process.returncode == 0, f"seed {seed}: {lives}"
    print(f"  {name}, seed {seed}: went on as {lives}")
    check_near(f"{name}, killed and changed", folder, whole, allowed)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        full, lora = recipes(out)
        lora["model"]["path"] = str(compare("full", full, out, random.randrange(10**6)) / "final")
        compare("lora", lora, out, random.randrange(10**6))
    print("shard: passed")


if __name__ == "__main__":
    sys.exit(main())
