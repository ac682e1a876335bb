"""Runs the programs that a script starts, and ends with them: SIGINT, SIGTERM, SIGHUP and SIGUSR1 to the script go on to the
program, which saves and ends; the script waits for it and then ends too. `install()` once, at the script's start."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_running: list[tuple[subprocess.Popen, bool]] = []
_starting = False
_received: list[int] = []


class Stopped(SystemExit):
    """A signal came, to the script or to its program. Where nobody catches it, the script ends with 128 + its number, as shells do."""

    def __init__(self):
        super().__init__(128 + (_received[0] if _received else signal.SIGTERM))


def _pass_on(number: int, _) -> None:
    _received.append(number)
    if not _running and not _starting:
        raise Stopped
    for process, group in list(_running):
        _send(process, group, number)


def _send(process: subprocess.Popen, group: bool, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, number) if group else process.send_signal(number)


def install() -> None:
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # by nohup
            signal.signal(number, _pass_on)


@contextlib.contextmanager
def started(command: list, group: bool = False, **options) -> Iterator[subprocess.Popen]:
    """The program while it runs. `group`: it is a script whose own children get the signals too. Raises Stopped where a signal
    came and the program did not come to its end."""
    global _starting
    if _received:
        raise Stopped
    _starting = True  # what comes before the program is known waits for it
    try:
        process = subprocess.Popen(command, start_new_session=group, **options)
        _running.append((process, group))
    finally:
        _starting = False
    try:
        for number in list(_received):  # twice where it came just now, which changes nothing for the program
            _send(process, group, number)
        yield process
        process.wait()
    finally:
        _running.remove((process, group))
    if _received and process.returncode != 0:
        raise Stopped


def run(command: list, check: bool = False, **options) -> subprocess.CompletedProcess:
    """As subprocess.run."""
    with started(command, **options) as process:
        output, errors = process.communicate()
    if check and process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
