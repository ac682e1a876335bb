"""What the demos share: commands that are shown and run, stages that are not run twice."""
from __future__ import annotations

import json
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import children

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = "build/longlora"


class Stop(Exception):
    """Ends the demo with a line for the user and an exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def run(command: list[str], quiet: bool = False, group: bool = False) -> None:
    """Runs a command from the repository's folder, its output shown. Signals go on to it (children.py)."""
    shown = shlex.join(command)
    print(f"\033[2m$ {shown}\033[0m" if sys.stdout.isatty() else f"$ {shown}", flush=True)
    with children.started(command, group, cwd=ROOT, stdout=subprocess.DEVNULL if quiet else None) as process:
        if process.wait() == 130:
            raise Stop("ended without saving; the same command goes on from what was saved before", 130)
    if process.returncode == 75 or -process.returncode in children.STOPPING:
        raise children.Stopped
    if process.returncode < 0:
        raise Stop(f"this was killed ({signal.strsignal(-process.returncode)}): {shown}", 1)
    if process.returncode:
        raise Stop(f"this failed (exit {process.returncode}): {shown}", process.returncode)


def write_whole(path: pathlib.Path, content: str) -> None:
    """A file that is complete or absent, whenever a signal comes."""
    part = path.with_name(path.name + ".part")
    part.write_text(content)
    part.replace(path)


def build() -> None:
    if (ROOT / PROGRAM).exists():
        return
    print("The program is not built yet: setting up and building (once).", flush=True)
    run(["scripts/setup"], group=True)
    run(["scripts/build"], group=True)


class Stages:
    """A demo in the folder `out`; `about` is what tells one demo from another."""

    def __init__(self, out: pathlib.Path, about: dict):
        self.out, self.about = out, about
        inside = ROOT in out.parents
        self.folder = out.relative_to(ROOT).as_posix() if inside else str(out)  # as the commands spell it
        self.options: list[str] = []  # of the program, before every verb
        self.commands: list[tuple[str, str, float]] = []  # stage, command, seconds

    # A stage leaves stages/NAME.json when it is complete; the text in it says what it did.
    def stage(self, name: str, title: str, command: list[str], leftover: str = "", recipe: str = "",
              quiet: bool = False) -> None:
        """Runs one command of the demo unless it is done. `leftover`: the folder a stopped training goes on from."""
        command = [command[0], *self.options, *command[1:]]
        mark = self.out / "stages" / f"{name}.json"
        if mark.exists():
            done = json.loads(mark.read_text())
            if done["command"] != command or done["recipe"] != recipe:
                raise Stop(f"{self.folder}: stage {name} was run with other settings; --overwrite starts over", 2)
            self.commands.append((name, shlex.join(done["command"]), done["seconds"]))
            print(f"{title}: done before")
            return
        print(f"\n{title}", flush=True)
        again = list(command)
        start = time.time()
        finished = leftover and (self.out / leftover / "final").exists()  # stopped just before its mark was written
        if leftover and (self.out / leftover).exists() and not finished:
            if any((self.out / leftover).glob("step-*")):
                again.append("--resume")
            else:
                shutil.rmtree(self.out / leftover)
        if not finished:
            run(again, quiet)
        seconds = time.time() - start
        self.commands.append((name, shlex.join(command), seconds))
        mark.parent.mkdir(exist_ok=True)
        write_whole(mark, json.dumps({"command": command, "recipe": recipe, "seconds": round(seconds, 2)}) + "\n")

    def start(self, overwrite: bool) -> None:
        """An empty folder, or the same demo begun before."""
        about = self.out / "demo.json"
        if about.exists() and overwrite:
            shutil.rmtree(self.out)
        elif about.exists():
            before = json.loads(about.read_text())
            if before != self.about:
                raise Stop(f"{self.folder} holds another demo ({before['size']}, seed {before['seed']}); choose another "
                           "--out, or --overwrite", 2)
        elif self.out.exists() and any(self.out.iterdir()):
            raise Stop(f"{self.folder} is not empty and holds no demo; choose another --out", 2)
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(about, json.dumps(self.about) + "\n")
