#!/usr/bin/env python3
"""A signal inside a long step: the program says so before the step is over, gives the step up, saves the state after the one
before and ends with 75; resumed, the run ends with the same bits. On one rank and on two. Signals during the saving change
nothing, a second Ctrl-C ends without it, ranks that the kernel kills were not stopped, and a script that is stopped leaves no
program behind. How long it took from the signal to the message and to the end is printed."""
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from resume import PROGRAM, ROOT, log_of
from support.tiny_model import write_tiny_model

PATIENCE = 120  # seconds; only a test that fails takes them


def until(condition, process: subprocess.Popen, what: str) -> bool:
    """Waits for it; false where the process ended first."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.001)
    return True


class Run:
    """A training run in `folder`; its messages go to a file that is read while it goes."""

    def __init__(self, recipe: dict, folder: pathlib.Path, ranks: int, *flags: str):
        self.folder, self.messages = folder, folder.with_suffix(".txt")
        path = folder.with_suffix(".json")
        path.write_text(json.dumps(recipe).replace("@DIR@", str(folder)))
        with open(self.messages, "w") as errors:
            self.process = subprocess.Popen([PROGRAM, "train", path, *(["--nproc", str(ranks)] if ranks > 1 else []), *flags],
                                            stderr=errors, env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"})

    def said(self, words: str) -> bool:
        return words in self.messages.read_text()

    def steps(self) -> int:
        log = self.folder / "metrics.jsonl"
        return log.read_text().count("\n") if log.exists() else 0

    def wait_for_step(self, step: int) -> None:
        assert until(lambda: self.steps() >= step, self.process, f"step {step}"), self.messages.read_text()

    def send(self, *numbers: int) -> None:
        self.sent = time.monotonic()
        for number in numbers:
            self.process.send_signal(number)

    def end(self) -> int:
        return self.process.wait(PATIENCE)


def check_end(run: Run, code: int, words: str, saved: list) -> None:
    ended = run.end()
    text = run.messages.read_text()
    assert ended == code, f"exit code {ended}, not {code}\n{text}"
    assert text.count("finishing up") == 1 and words in text, text
    assert sorted(path.name for path in run.folder.glob("step-*")) == saved, (saved, list(run.folder.iterdir()), text)
    assert not (run.folder / "final").exists()


def check_resumed(recipe: dict, folder: pathlib.Path, whole: pathlib.Path, ranks: int) -> None:
    run = Run(recipe, folder, ranks, "--resume")
    assert run.end() == 0, run.messages.read_text()
    weights = [(f / "final/model.safetensors").read_bytes() for f in (folder, whole)]
    assert weights[0] == weights[1] and log_of(folder) == log_of(whole), f"{folder.name} is not as if never stopped"


def in_a_long_step(recipe: dict, out: pathlib.Path, whole: pathlib.Path, name: str, ranks: int) -> None:
    """Slurm's pair: SIGUSR1, and SIGTERM as soon as it was heard."""
    run = Run(recipe, out / name, ranks)
    run.wait_for_step(1)
    run.send(signal.SIGUSR1)
    sent = run.sent
    until(lambda: run.said("SIGUSR1: finishing up"), run.process, "the message")
    said = time.monotonic() - sent
    assert run.steps() == 1, "the step was over before it was said"
    run.send(signal.SIGTERM)
    check_end(run, 75, "stopped after step 1, which is saved", ["step-1"])
    print(f"signals: {name}: said after {said:.2f} s, ended after {time.monotonic() - sent:.2f} s")
    assert run.steps() == 1, "the step was not given up"
    check_resumed(recipe, run.folder, whole, ranks)


def in_the_first_step(recipe: dict, out: pathlib.Path, whole: pathlib.Path, ranks: int) -> None:
    run = Run(recipe, out / f"first-{ranks}", ranks)
    assert until(lambda: (run.folder / "metrics.jsonl").exists(), run.process, "the first step")
    run.send(signal.SIGINT, signal.SIGINT)  # terminals and launchers send it twice: not taken for a second one
    check_end(run, 75, "--resume starts it again", [])
    check_resumed(recipe, run.folder, whole, ranks)


def in_a_validation(recipe: dict, out: pathlib.Path, ranks: int) -> None:
    """It is given up as well, and made up for."""
    recipe = {**recipe, "batch": {"sequences": 2, "micro": 1}, "eval": {"every_steps": 1, "rows": 1000}}
    whole, run = out / f"validated-{ranks}", None
    assert Run(recipe, whole, ranks).end() == 0
    for attempt in range(20):
        shutil.rmtree(out / f"validation-{ranks}", ignore_errors=True)
        run = Run(recipe, out / f"validation-{ranks}", ranks)
        run.wait_for_step(1)
        time.sleep(0.02 * attempt)  # into the second validation, however fast the machine is
        run.send(signal.SIGTERM)
        if run.end() == 75 and "unlogged" in json.loads(next(run.folder.glob("step-*/state.json")).read_text()):
            break
    else:
        raise AssertionError("no validation was stopped")
    check_resumed(recipe, run.folder, whole, ranks)
    # Stopped or killed again before the next checkpoint: the same one is resumed, and its step's line is there already.
    shutil.rmtree(run.folder / "final")
    check_resumed(recipe, run.folder, whole, ranks)


def second_interrupt(recipe: dict, out: pathlib.Path, ranks: int) -> None:
    """While a checkpoint is being written, which takes a while with this vocabulary. What was saved before stays."""
    init, whole, folder = out / f"wide-{ranks}", out / f"wide-whole-{ranks}", out / f"interrupted-{ranks}"
    write_tiny_model(init, vocab_size=65536)
    recipe = {**recipe, "model": {"init": str(init), "dtype": "float32"}, "batch": {"sequences": 2, "micro": 1},
              "checkpoint": {"dir": "@DIR@", "every_steps": 1}}
    assert Run(recipe, whole, ranks).end() == 0
    for _ in range(50):  # until it stands still within the writing
        shutil.rmtree(folder, ignore_errors=True)
        run = Run(recipe, folder, ranks)
        part = folder / ".step-2.partial"
        assert until(part.exists, run.process, "the second checkpoint"), run.messages.read_text()
        writer = run.process.pid if ranks == 1 else ranks_of(run.process)[0]
        run.send(signal.SIGINT)
        until(lambda: run.said("SIGINT: finishing up"), run.process, "the message")
        with contextlib.suppress(ProcessLookupError):  # it was faster: once more
            os.kill(writer, signal.SIGSTOP)
        time.sleep(1.1)
        run.send(signal.SIGINT)
        if ranks == 1:
            run.send(signal.SIGCONT)  # the supervisor of several goes on anyway
        if run.end() == 130 and part.exists():
            break
    assert run.process.returncode == 130 and run.said("ended by a second Ctrl-C"), run.messages.read_text()
    wait_for_end(writer)
    assert part.exists() and [path.name for path in folder.glob("step-*")] == ["step-1"], list(folder.iterdir())
    check_resumed(recipe, folder, whole, ranks)


def to_one_rank(recipe: dict, out: pathlib.Path, whole: pathlib.Path) -> None:
    """A Ctrl-C that only rank 1 gets is named as such by rank 0, and stops both."""
    run = Run(recipe, out / "one-of-two", 2)
    run.wait_for_step(1)
    os.kill(ranks_of(run.process)[1], signal.SIGINT)
    check_end(run, 75, "SIGINT to rank 1: finishing up", ["step-1"])
    assert not run.said("Ctrl-C again"), run.messages.read_text()
    check_resumed(recipe, run.folder, whole, 2)


def killed_while_stopping(recipe: dict, out: pathlib.Path) -> None:
    """SIGKILL from elsewhere (the kernel's, out of memory) after a signal is no stop."""
    run = Run(recipe, out / "killed", 2)
    run.wait_for_step(1)
    ranks = ranks_of(run.process)
    try:
        for pid in ranks:
            os.kill(pid, signal.SIGSTOP)
        assert until(lambda: all(map(stands_still, ranks)), run.process, "ranks that stand still")
        run.send(signal.SIGTERM)
        assert until(lambda: all(signal.SIGTERM in pending(pid) for pid in ranks), run.process, "the signal passed on")
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
        assert run.end() == 1 and run.said("was killed by signal 9"), run.messages.read_text()
    finally:
        run.process.kill()  # and the ranks with it
    assert not run.said("run the same command again"), run.messages.read_text()


def a_stopped_doctor() -> None:
    doctor = subprocess.Popen([PROGRAM, "doctor", "--kernels"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert doctor.stdout.readline().startswith("Program and processor")
    doctor.send_signal(signal.SIGTERM)
    said = doctor.communicate(timeout=PATIENCE)
    assert doctor.returncode == 75 and "Attention" not in said[0], (doctor.returncode, said)


def state_in(stat: pathlib.Path) -> str:
    """R, S, T, Z, ... of a process or thread, by its file in /proc."""
    return stat.read_text().rpartition(")")[2].split()[0]


def stands_still(pid: int) -> bool:
    return all(state_in(stat) == "T" for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"))


def pending(pid: int) -> set:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    bits = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


def ranks_of(supervisor: subprocess.Popen) -> list:
    return [int(pid) for pid in pathlib.Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()]


def wait_for_end(pid: int) -> None:
    """Of a rank whose supervisor is gone; nobody may collect it."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            state = state_in(pathlib.Path(f"/proc/{pid}/stat"))
        except OSError:
            return
        if state in "ZX":
            return
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)


def programs_in(folder: pathlib.Path) -> list:
    """The processes of the program with the folder in their command line."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"longlora") and str(folder).encode() in b" ".join(words):
            found.append(words)
    return found


def a_stopped_script(out: pathlib.Path, number: int) -> None:
    """scripts/demo ends with its training, and goes on with it."""
    folder = out / "demo"
    command = [sys.executable, ROOT / "scripts/demo", "--quick", "--out", folder]
    for life in range(2):
        shown = out / f"demo-{life}.txt"
        with open(shown, "w") as output:
            script = subprocess.Popen(command, stdout=output, stderr=output)
        log, before = folder / "base/metrics.jsonl", 0
        if life > 0:
            assert until(lambda: "--resume" in shown.read_text(), script, "the training that goes on"), shown.read_text()
            before = len(log_of(folder / "base"))
        assert until(lambda: log.exists() and log.read_text().count("\n") > before, script, "the demo's training"), shown.read_text()
        script.send_signal(number)
        code = script.wait(PATIENCE)
        assert code == 75 and "run the same command again" in shown.read_text(), (code, shown.read_text())
        assert not programs_in(folder), programs_in(folder)
        assert list((folder / "base").glob("step-*")), "nothing was saved"


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would inherit that it is ignored
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        words = random.Random(1)
        (out / "text.txt").write_text(" ".join(words.choice("alpha beta gamma delta epsilon zeta".split()) for _ in range(20000)))
        write_tiny_model(out / "init")
        recipe = {"model": {"init": str(out / "init"), "dtype": "float32"}, "context": {"length": 64}, "seed": 3,
                  "data": {"train": [str(out / "text.txt")], "valid": [str(out / "text.txt")]},
                  "attention": {"pattern": "full"}, "tune": {"mode": "full"}, "optimizer": {"lr": 1e-3},
                  "batch": {"sequences": 401, "micro": 1},  # a long step; 401: one rank has a micro-batch more
                  "schedule": {"type": "constant_with_warmup", "warmup_steps": 0, "steps": 3},
                  "checkpoint": {"dir": "@DIR@", "every_steps": 0}, "log": {"tensorboard": False}}
        for ranks in (1, 2):
            whole = out / f"whole-{ranks}"
            assert Run(recipe, whole, ranks).end() == 0
            in_a_long_step(recipe, out, whole, f"long-{ranks}", ranks)
            in_the_first_step(recipe, out, whole, ranks)
            in_a_validation(recipe, out, ranks)
            second_interrupt(recipe, out, ranks)
        to_one_rank(recipe, out, out / "whole-2")
        killed_while_stopping(recipe, out)
        a_stopped_doctor()
        split = {**recipe, "parallel": {"shard": "model"}}
        whole = out / "whole-split"
        assert Run(split, whole, 2).end() == 0
        in_a_long_step(split, out, whole, "long-split", 2)
        shared = {**recipe, "batch": {"sequences": 201, "micro": 1}, "parallel": {"sequence": 2}}
        whole = out / "whole-shared"
        assert Run(shared, whole, 2).end() == 0
        in_a_long_step(shared, out, whole, "long-shared", 2)
        a_stopped_script(out, signal.SIGTERM)
    print("signals: passed")


if __name__ == "__main__":
    sys.exit(main())
