#!/usr/bin/env python3
"""One run on 1, 2, 3 and 4 ranks makes the same steps: LoRA and full, packed documents, grouped-query attention, S2, dropout,
rows that do not divide, and ranks that share a row (parallel.sequence), at lengths that do not divide. The same number of ranks gives the same bits; another number sums in another order, so it may differ
as much as one rank does from itself with other micro-batches (times 3). A rank that is killed ends the job within 10 s with
what was saved intact, a signal to one rank saves the job, a rank that hangs is named; all resume, on any number of ranks."""
import array
import json
import math
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from resume import PROGRAM, ROOT, log_of

SECONDS_TO_END = 10  # for all ranks, once one has died
FLOAT32 = 2.0**-23  # the distance between float32 numbers around 1


def start(recipe: dict, folder: pathlib.Path, ranks: int, *flags: str, **environment: str) -> subprocess.Popen:
    recipe = json.loads(json.dumps(recipe).replace("@DIR@", str(folder)))
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(recipe))
    words = [PROGRAM, "train", path, *(["--nproc", str(ranks)] if ranks > 1 else []), *flags]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **environment})


def run(recipe: dict, folder: pathlib.Path, ranks: int, *flags: str) -> pathlib.Path:
    process = start(recipe, folder, ranks, *flags)
    errors = process.communicate()[1]
    assert process.returncode == 0, f"{folder.name}: exit code {process.returncode}\n{errors}"
    return folder


def tensors(folder: pathlib.Path) -> array.array:
    """All weights of final/, one after the other."""
    file = next((folder / "final").glob("*.safetensors")).read_bytes()
    size = int.from_bytes(file[:8], "little")
    header = {name: entry for name, entry in json.loads(file[8:8 + size]).items() if name != "__metadata__"}
    assert all(entry["dtype"] == "F32" for entry in header.values())
    return array.array("f", file[8 + size:])


def distance(a: pathlib.Path, b: pathlib.Path) -> tuple:
    """How far two runs are apart: losses (relative, the largest) and final weights (relative, as a whole)."""
    logs = log_of(a), log_of(b)
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    assert [line["tokens"] for line in logs[0]] == [line["tokens"] for line in logs[1]]
    losses = [abs(x[key] - y[key]) / y[key] for x, y in zip(*logs) for key in ("loss", "valid_loss", "grad_norm") if key in y]
    one, other = tensors(a), tensors(b)
    assert len(one) == len(other)
    return max(losses), math.dist(one, other) / math.hypot(*other)


def check_near(name: str, a: pathlib.Path, b: pathlib.Path, allowed: tuple) -> None:
    found = distance(a, b)
    print(f"  {name}: losses {found[0]:.1e}, weights {found[1]:.1e} apart; allowed {allowed[0]:.1e}, {allowed[1]:.1e}")
    assert found[0] <= allowed[0] and found[1] <= allowed[1], name


def check_same(a: pathlib.Path, b: pathlib.Path) -> None:
    weights = [next((folder / "final").glob("*.safetensors")).read_bytes() for folder in (a, b)]
    assert weights[0] == weights[1] and log_of(a) == log_of(b), f"{a.name} and {b.name} differ"


def sharing(recipe: dict, sequence: int) -> dict:
    return {**recipe, "parallel": {"sequence": sequence}}


def compare(name: str, recipe: dict, out: pathlib.Path, numbers: list, shared: list) -> tuple:
    """Runs on one rank, on several, and on (ranks, of which so many share a row). Returns how far they may be apart, and
    their folders by number of ranks."""
    folders = {1: run(recipe, out / f"{name}-1", 1)}
    other = json.loads(json.dumps(recipe))
    other["batch"]["micro"] = 4 // recipe["batch"]["micro"]
    reordered = distance(run(other, out / f"{name}-micro", 1), folders[1])
    allowed = tuple(3 * max(value, FLOAT32) for value in reordered)
    for ranks in numbers:
        folders[ranks] = run(recipe, out / f"{name}-{ranks}", ranks)
        check_near(f"{name}, {ranks} ranks", folders[ranks], folders[1], allowed)
    check_same(run(recipe, out / f"{name}-again", numbers[0]), folders[numbers[0]])
    for ranks, sequence in shared:
        folders[ranks, sequence] = run(sharing(recipe, sequence), out / f"{name}-{ranks}-{sequence}", ranks)
        check_near(f"{name}, {ranks} ranks, {sequence} a row", folders[ranks, sequence], folders[1], allowed)
    ranks, sequence = shared[0]
    check_same(run(sharing(recipe, sequence), out / f"{name}-shared-again", ranks), folders[ranks, sequence])
    return allowed, folders


def pids(process: subprocess.Popen) -> dict:
    """The ranks' processes, by rank."""
    found = {}
    for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        try:
            variables = dict(v.split("=", 1) for v in pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in v)
            found[int(variables["RANK"])] = int(pid)
        except (OSError, KeyError):
            pass
    return found


def wait_for_step(process: subprocess.Popen, folder: pathlib.Path, step: int) -> bool:
    """Until the log has that step; whether the run still goes on."""
    log = folder / "metrics.jsonl"
    while process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= step:
            return True
        time.sleep(0.002)
    return False


def kill_ranks(recipe: dict, out: pathlib.Path, whole: pathlib.Path, ranks: int, seed: int, wanted: int = 3) -> None:
    chance, parts, kills = random.Random(seed), out / f"killed-{wanted}", 0
    steps = recipe["schedule"]["steps"]
    for life in range(40):
        saved = list(parts.glob("step-*"))
        assert all((folder / "state.json").exists() for folder in saved), f"seed {seed}: {saved}"
        if not saved and parts.exists():
            shutil.rmtree(parts)
        process = start(recipe, parts, ranks, *(["--resume"] if saved else []))
        newest = max((int(folder.name.removeprefix("step-")) for folder in saved), default=0)
        victim = chance.randrange(ranks)
        if kills < wanted and wait_for_step(process, parts, min(newest + chance.randint(1, 4), steps - 1)):
            time.sleep(chance.uniform(0, 0.05))
            killed = time.monotonic()
            try:
                os.kill(pids(process)[victim], signal.SIGKILL)
            except (KeyError, ProcessLookupError):
                pass  # it was over before
            errors = process.communicate(timeout=SECONDS_TO_END)[1]
            if process.returncode != 0:
                kills += 1
                assert process.returncode == 1 and f"rank {victim} was killed by signal 9" in errors, (seed, errors)
                print(f"  rank {victim} killed in life {life}: ended after {time.monotonic() - killed:.1f} s")
        else:
            errors = process.communicate()[1]
            assert process.returncode == 0, f"seed {seed}: {errors}"
        if process.returncode == 0 and kills >= wanted:
            break
        if process.returncode == 0:  # it was over before the rank was killed: once more
            shutil.rmtree(parts)
    assert kills >= wanted, f"seed {seed}: {kills} kills in {life + 1} lives"
    check_same(parts, whole)
    print(f"  {kills} ranks killed (seed {seed}): same weights, same log")


def stop_one(recipe: dict, out: pathlib.Path, folders: dict, allowed: tuple) -> None:
    """SIGTERM to one rank alone; resumed on the same and on other numbers of ranks."""
    parts = out / "stopped"
    for _ in range(10):
        process = start(recipe, parts, 2)
        if wait_for_step(process, parts, 4):
            try:
                os.kill(pids(process)[1], signal.SIGTERM)
            except (KeyError, ProcessLookupError):
                pass
        errors = process.communicate()[1]
        if process.returncode != 0:
            break
        shutil.rmtree(parts)
    assert process.returncode == 75 and "SIGTERM to rank 1: finishing up" in errors, (process.returncode, errors)
    for ranks in (4, 1, 2):
        copy = out / f"stopped-{ranks}"
        shutil.copytree(parts, copy)
        run(recipe, copy, ranks, "--resume")
        if ranks == 2:
            check_same(copy, folders[2])
        else:
            check_near(f"2 ranks, then {ranks}", copy, folders[1], allowed)


def hang(recipe: dict, out: pathlib.Path) -> None:
    """A rank that stands still: the others give up after the time-out and say who it is."""
    folder = out / "hangs"
    process = start(recipe, folder, 2, "--timeout", "3")
    assert wait_for_step(process, folder, 2)
    time.sleep(0.5)
    os.kill(pids(process)[1], signal.SIGSTOP)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "rank 1: step" in errors and "heard of" in errors, errors


def by_hand(recipe: dict, out: pathlib.Path) -> None:
    """Ranks started one by one, as torchrun and srun do: nobody watches over them."""
    def both(name: str, words: list, pause: float = 0) -> list:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        ranks = []
        for rank in range(2):
            time.sleep(pause * rank)
            ranks.append(start(recipe, out / name, 1, *words[rank], RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                               MASTER_PORT=port, LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2"))
        return ranks
    ranks = both("other-recipes", [[], ["optimizer.lr=0.5"]])
    errors = [process.communicate(timeout=60)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [2, 2], errors
    assert all("rank 1 has another version, recipe, base model or data than rank 0" in text for text in errors), errors

    ranks = both("by-hand", [[], []])
    assert wait_for_step(ranks[0], out / "by-hand", 2)
    ranks[1].kill()
    errors = ranks[0].communicate(timeout=SECONDS_TO_END)[1]
    assert ranks[0].returncode == 1 and "another rank has ended" in errors, errors
    ranks[1].communicate()

    # A finished run is resumed, as a job that is started again does it: rank 0 stays until the late one has come.
    words = ["schedule.steps=4", "schedule.warmup_steps=2"]
    run(recipe, out / "finished", 1, *words)
    ranks = both("finished", [[*words, "--resume"]] * 2, pause=1.5)
    errors = [process.communicate(timeout=60)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    assert "this run is finished" in errors[0], errors


def recipes(out: pathlib.Path) -> tuple:
    """Data and an initial model in the folder; a recipe for full fine-tuning, and of one with LoRA on what that left."""
    words = random.Random(1)
    for number in range(30):  # documents of very different lengths
        text = " ".join(words.choice("alpha beta gamma delta epsilon zeta eta".split()) for _ in range(words.randint(5, 400)))
        (out / f"text-{number:02}.txt").write_text(text)
    init = out / "init"
    init.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (init / file).write_bytes((ROOT / "recipes/demo" / file).read_bytes())
    config = json.loads((ROOT / "recipes/demo/config.json").read_text())
    config.update(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=16)
    (init / "config.json").write_text(json.dumps(config))
    data = {"train": [str(out / "text-*.txt")], "valid": [str(out / "text-0*.txt")]}
    common = {"batch": {"sequences": 4, "micro": 1}, "eval": {"every_steps": 4, "rows": 5}, "seed": 3,
              "optimizer": {"lr": 1e-3}, "log": {"tensorboard": False},
              "schedule": {"type": "cosine", "warmup_steps": 2, "steps": 10},
              "checkpoint": {"dir": "@DIR@", "every_steps": 2}}
    full = {**common, "data": {**data, "packing": "documents"}, "model": {"init": str(init), "dtype": "float32"},
            "context": {"length": 61}, "attention": {"pattern": "full"}, "tune": {"mode": "full"}}
    lora = {**common, "data": {**data, "packing": "documents"}, "model": {"path": "", "dtype": "float32"},
            "context": {"length": 251, "rope": {"type": "linear"}}, "attention": {"finish": 0.3},
            "tune": {"rank": 4, "alpha": 8, "dropout": 0.1}}
    return full, lora


def stop_before_the_first_step(recipe: dict, out: pathlib.Path) -> None:
    for pause in (0.0, 0.3, 0.8):
        process = start(recipe, out / f"early-{pause}", 2)
        while len(pids(process)) < 2:
            time.sleep(0.01)
        time.sleep(pause)
        process.terminate()
        errors = process.communicate()[1]
        assert process.returncode == 75, f"stopped after {pause} s: exit code {process.returncode}\n{errors}"


def wrong_for_all_is_said_once(recipe: dict, out: pathlib.Path) -> None:
    for ranks, keys, words in ((8, {}, "batch.sequences 4"), (3, {"sequence": 2}, "parallel.sequence 2")):
        process = start({**recipe, "parallel": keys}, out / f"wrong-{ranks}", ranks)
        errors = process.communicate()[1]
        assert process.returncode == 2 and errors.count("\n") == 1 and words in errors, errors
        assert not (out / f"wrong-{ranks}").exists()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        full, lora = recipes(out)
        allowed, folders = compare("full", full, out, [2, 3], [(2, 2), (4, 4), (4, 2)])
        lora["model"]["path"] = str(folders[1] / "final")
        allowed, folders = compare("lora", lora, out, [2, 4], [(2, 2), (4, 4), (4, 2)])
        stop_one(lora, out, folders, allowed)
        kill_ranks(lora, out, folders[2], 2, random.randrange(10**6))
        kill_ranks(sharing(lora, 2), out, folders[2, 2], 2, random.randrange(10**6), 1)
        endless = {**lora, "schedule": {"type": "cosine", "steps": 10**6}, "eval": {}}
        stop_before_the_first_step(endless, out)
        wrong_for_all_is_said_once(lora, out)
        hang(endless, out)
        by_hand(endless, out)
        too_short = start({**sharing(full, 4), "context": {"length": 7}}, out / "short", 4)
        assert "a row of 7 tokens" in too_short.communicate()[1] and too_short.returncode == 2
        too_many = start({**lora, "batch": {"sequences": 2, "micro": 1}}, out / "many", 3)
        assert "fewer than the 3 ranks" in too_many.communicate()[1] and too_many.returncode == 2
    print("ranks: passed")


if __name__ == "__main__":
    sys.exit(main())
