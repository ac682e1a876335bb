#!/usr/bin/env python3
"""Scripts that are stopped take what they started with them: those in Python (scripts/children.py) also a program that is just
being started, those in bash (run_child of scripts/toolchain.sh, scripts/build) also what the program started. A program that crashed in a demo was
not stopped. Over stand-ins for the programs; and scripts/test takes --full and --isa in either order."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import children  # noqa: E402
from demo_parts import stages  # noqa: E402

PATIENCE = 60  # seconds; only a test that fails takes them

# Names itself and a program that it starts, and waits; says which file they are in by its argument.
WAITS = """#!/usr/bin/env python3
import os, pathlib, subprocess, sys, time
other = subprocess.Popen(["sleep", "600"])
here = pathlib.Path(os.environ["TEST_FOLDER"])
(here / "new").write_text(f"{os.getpid()} {other.pid}")
(here / "new").rename(here / "started")
time.sleep(600)
"""

# A script of ours whose program has been started and is not known yet when the signal comes.
AT_THE_START = """
import os, pathlib, signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
import children
start = subprocess.Popen
def popen(*arguments, **options):
    process = start(*arguments, **options)
    (pathlib.Path(os.environ["TEST_FOLDER"]) / "started").write_text(str(process.pid))
    os.kill(os.getpid(), signal.SIGTERM)
    return process
subprocess.Popen = popen
children.install()
children.run(["sleep", "600"])
"""

RUNS = """
import sys
sys.path.insert(0, sys.argv[1])
import children
children.install()
children.run(sys.argv[2:], group=True)
"""


def until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def stopped(out: pathlib.Path, command: list, number: int, sent: bool = True) -> int:
    """Starts a script, signals it when its program runs, and returns its exit code; nothing that it started is left."""
    here = out / "here"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    for each in children.STOPPING:  # whatever started the test may ignore them
        signal.signal(each, signal.default_int_handler)
    script = subprocess.Popen(command, env={**os.environ, "TEST_FOLDER": str(here)}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    until((here / "started").exists, f"the program of {command}")
    if sent:
        script.send_signal(number)
    code = script.wait(PATIENCE)
    left = [int(pid) for pid in (here / "started").read_text().split()]
    try:
        until(lambda: not any(map(runs, left)), f"the end of what {command} started")
    finally:
        for pid in filter(runs, left):
            os.kill(pid, signal.SIGKILL)
    return code


def in_python(out: pathlib.Path) -> None:
    code = stopped(out, [sys.executable, "-c", AT_THE_START, ROOT / "scripts"], signal.SIGTERM, sent=False)
    assert code == 128 + signal.SIGTERM, code
    for number in children.STOPPING:
        code = stopped(out, [sys.executable, "-c", RUNS, ROOT / "scripts", out / "scripts/build"], number)
        assert code == 128 + number, (number, code)


def in_bash(out: pathlib.Path) -> None:
    (out / ".cache/torch/2.10.0").mkdir(parents=True)  # the headers that scripts/check-torch would get
    for command in (["scripts/test", "[tag]"], ["scripts/check-torch"]):
        for number in children.STOPPING:
            code = stopped(out, [out / command[0], *command[1:]], number)
            assert code == 128 + number, (command, number, code)


def in_a_build(out: pathlib.Path) -> None:
    """By the real CMake and ninja."""
    clone = out / "clone"
    (clone / "scripts").mkdir(parents=True)
    for file in ("scripts/build", "scripts/toolchain.sh", "CMakePresets.json"):
        shutil.copy(ROOT / file, clone / file)
    (clone / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(waits LANGUAGES NONE)\n"
                                          f"add_custom_target(waits ALL {out / 'scripts/build'})\n")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert stopped(out, [clone / "scripts/build"], number) != 0


def in_a_demo() -> None:
    def end_of(program: str) -> object:
        try:
            stages.run([sys.executable, "-c", f"import os, signal, sys\n{program}"], quiet=True)
        except stages.Stop as stop:
            return stop.code
        except children.Stopped:
            return "stopped"
        return 0

    for number in children.STOPPING:
        assert end_of(f"signal.signal({number:d}, signal.SIG_DFL); os.kill(os.getpid(), {number:d})") == "stopped", number
    assert end_of("sys.exit(75)") == "stopped"
    assert end_of("sys.exit(3)") == 3
    for name in ("SIGSEGV", "SIGKILL"):
        assert end_of(f"os.kill(os.getpid(), signal.{name})") == 1, name


def options_of_the_tests(out: pathlib.Path) -> None:
    (out / "scripts/check-includes").write_text('#!/bin/sh\necho "everything on $ATEN_CPU_CAPABILITY"\n')
    (out / "scripts/check-includes").chmod(0o755)
    (out / "scripts/build").write_text("#!/bin/sh\nexit 1\n")  # far enough
    for options in (["--full", "--isa", "baseline"], ["--isa", "baseline", "--full"]):
        done = subprocess.run([out / "scripts/test", *options], capture_output=True, text=True)
        assert done.stdout.startswith("everything on default\n"), (options, done.stdout, done.stderr)
    for options in (["--full", "[tag]"], ["--full", "--isa", "baseline", "--asan"], ["--isa", "sse"], ["--isa"]):
        done = subprocess.run([out / "scripts/test", *options], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("scripts/test: --"), (options, done.stdout, done.stderr)


def main() -> None:
    in_a_demo()
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name)
        (out / "scripts").mkdir()
        for script in ("test", "check-torch", "toolchain.sh"):
            shutil.copy(ROOT / "scripts" / script, out / "scripts" / script)
        (out / "scripts/build").write_text(WAITS)
        (out / "scripts/build").chmod(0o755)
        in_python(out)
        in_bash(out)
        in_a_build(out)
        options_of_the_tests(out)
    print("script signals: what scripts started ends with them; a crash is no stop; scripts/test takes its options in any order")


if __name__ == "__main__":
    sys.exit(main())
