"""Runs a demo script in its quick size, twice: what the first run left is checked, the second must not repeat a stage."""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]


def expect(condition, message):
    if not condition:
        sys.exit(f"{pathlib.Path(sys.argv[0]).stem}: {message}")


def run_twice(script, arguments, check):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "demo"
        command = [sys.executable, str(ROOT / script), "--quick", *arguments, "--out", str(out)]
        expect(subprocess.run(command).returncode == 0, f"{script} --quick failed")
        check(out)
        again = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        expect(again.returncode == 0 and "\n$ " not in again.stdout, "a second run repeated a stage")
