#!/usr/bin/env python3
"""scripts/slurm/train.sbatch over stand-ins for srun, scontrol and the program: the job is queued again when the first rank that
ends has saved and stopped (75), whatever becomes of the others, and not otherwise; a signal to the tasks reaches the ranks; a
job that was stopped before resumes, with a checkpoint and in its first step."""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/slurm/train.sbatch"

# Starts two tasks; where the first to end failed, kills the other, as --kill-on-bad-exit=1 does; signals all tasks where the test
# asks for it; returns the highest status.
SRUN = r"""#!/usr/bin/env python3
import os, pathlib, signal, subprocess, sys, time

for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whatever started the test may ignore them, and then no shell could trap them
command = sys.argv[1:]
while command[0].startswith("--"):
    command.pop(0)
tasks = [subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(i)}, start_new_session=True) for i in range(2)]
here = pathlib.Path(os.environ["TEST_FOLDER"])
if name := os.environ.get("TEST_SIGNAL"):
    while not all((here / f"started-{i}").exists() for i in range(2)):
        time.sleep(0.01)
    for task in tasks:
        task.send_signal(getattr(signal, name))
while all(task.poll() is None for task in tasks):
    time.sleep(0.01)
if any(task.poll() not in (None, 0) for task in tasks):
    for task in tasks:
        if task.poll() is None:
            os.killpg(task.pid, signal.SIGKILL)
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""

SCONTROL = """#!/bin/sh
echo "$*" >>"$TEST_FOLDER/scontrol.log"
"""

# A rank whose end the test sets: TEST_RANK_0 and TEST_RANK_1 are "STATUS" at once, "wait STATUS" after the other has ended,
# "signal STATUS" after USR1 or TERM, or "forever".
PROGRAM = r"""#!/usr/bin/env python3
import os, pathlib, signal, sys, time
here = pathlib.Path(os.environ["TEST_FOLDER"])
if sys.argv[1:3] == ["recipe", "show"]:
    print('{"checkpoint": {"dir": "%s"}}' % (here / "run"))
    sys.exit(0)
rank = int(os.environ["SLURM_PROCID"])
(here / f"arguments-{rank}").write_text(" ".join(sys.argv[1:]))
end = os.environ[f"TEST_RANK_{rank}"].split()
heard = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda *_: heard.append(1))
(here / f"started-{rank}").touch()
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    if not (here / f"started-{1 - rank}").exists():  # else the end of this one might kill it before it has begun
        time.sleep(0.01)
    elif end[0] == "wait" and not (here / f"ended-{1 - rank}").exists():
        time.sleep(0.01)
    elif end[0] == "signal" and not heard:
        time.sleep(0.01)
    elif end[0] == "forever":
        time.sleep(0.01)
    else:
        break
while end[0] == "wait" and not list(pathlib.Path().glob(".longlora-*-ended")) and time.monotonic() < deadline:
    time.sleep(0.01)  # until the other's shell has noted its end
(here / f"ended-{rank}").touch()
sys.exit(int(end[-1]) if end[-1] != "forever" else 9)
"""


def job(folder: pathlib.Path, ranks: tuple, signal: str = "") -> tuple:
    """Runs the script; returns its status, whether the job was queued again, and what the ranks were started with."""
    folder.mkdir(exist_ok=True)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "longlora": PROGRAM}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for pattern in ("started-*", "ended-*", "scontrol.log"):
        for file in folder.glob(pattern):
            file.unlink()
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LONGLORA": str(folder / "longlora"),
                   "TEST_FOLDER": str(folder), "TEST_SIGNAL": signal, "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1",
                   "TEST_RANK_0": ranks[0], "TEST_RANK_1": ranks[1]}
    done = subprocess.run(["bash", SCRIPT, "my recipe.json", "seed=2"], cwd=folder, env=environment, timeout=120,
                          capture_output=True, text=True)
    calls = folder / "scontrol.log"
    queued = calls.read_text() if calls.exists() else ""
    return done.returncode, queued, [(folder / f"arguments-{i}").read_text() for i in range(2)], done.stdout + done.stderr


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name)
        cases = [  # rank 0, rank 1, signal, status, queued again
            ("0", "0", "", 0, False),
            ("wait 75", "75", "", 75, True),
            ("75", "wait 1", "", 75, True),  # another rank fails when the first has gone
            ("1", "wait 75", "", 137, False),  # the first failed by itself
            ("forever", "3", "", 137, False),  # killed because of the other
            *(("signal 75", "signal 75", name, 75, True) for name in ("SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP")),
        ]
        for i, (first, second, signal, status, queued) in enumerate(cases):
            folder = out / f"job {i}"
            code, calls, arguments, said = job(folder, (first, second), signal)
            case = f"ranks '{first}' and '{second}' {signal}"
            assert code == status, f"{case}: the script returned {code}, not {status}\n{said}"
            assert calls == ("requeue 7\n" if queued else ""), f"{case}: scontrol was called with '{calls}'\n{said}"
            assert arguments == ["train my recipe.json seed=2"] * 2, arguments
            assert not list(folder.glob(".longlora-*")), f"{case}: a note is left"
        for left in ("run/step-5/state.json", "run/metrics.jsonl"):  # the log alone: stopped in the first step
            folder = out / left.replace("/", " ")
            (folder / left).parent.mkdir(parents=True)
            (folder / left).touch()
            assert job(folder, ("0", "0"))[2] == ["train my recipe.json seed=2 --resume"] * 2, left
    print("slurm: queued again after 75 of the first rank, not after another end; signals arrive; what was stopped is resumed")


if __name__ == "__main__":
    sys.exit(main())
