#!/usr/bin/env python3
"""eval-passkey, eval-needle and eval-retrieval through the program: they run, a killed or stopped run leaves whole
cells and goes on to the results of one that was not, and what cannot be is refused with the documented exit code."""
import json
import pathlib
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/longlora"
TASKS = ["lines", "topics", "niah_single", "vt", "cwe"]


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


def done(*arguments) -> dict:
    result = run(*arguments, "--json", "-")
    assert result.returncode == 0, (arguments, result.stderr)
    return json.loads(result.stdout)


def refused(code: int, word: str, *arguments) -> None:
    result = run(*arguments)
    assert result.returncode == code and word in result.stderr, (arguments, result.returncode, result.stderr)


def tiny_model(out: pathlib.Path) -> pathlib.Path:
    """One step from random weights: what it answers is nonsense, but always the same."""
    init = out / "init"
    init.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (init / file).write_bytes((ROOT / "recipes/demo" / file).read_bytes())
    config = json.loads((ROOT / "recipes/demo/config.json").read_text())
    config.update(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                  head_dim=16, max_position_embeddings=2048)
    (init / "config.json").write_text(json.dumps(config))
    (out / "text.txt").write_text("def f(x):\n\treturn x\n" * 200)
    recipe = {"model": {"init": str(init)}, "context": {"length": 64}, "attention": {"pattern": "full"},
              "tune": {"mode": "full"}, "data": {"train": [str(out / "text.txt")]}, "batch": {"sequences": 1},
              "schedule": {"steps": 1, "warmup_steps": 0}, "checkpoint": {"dir": str(out / "run")},
              "log": {"tensorboard": False}}
    (out / "recipe.json").write_text(json.dumps(recipe))
    assert run("train", out / "recipe.json").returncode == 0
    final = out / "run/final"
    config = json.loads((final / "config.json").read_text())
    (final / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    return final


def stopped(arguments: list, out: pathlib.Path, after: int, how: signal.Signals) -> int:
    """Runs until `after` cells are there, then sends the signal; once more where the run was over before it came."""
    for _ in range(20):
        code = stopped_once(arguments, out, after, how)
        if code != 0:
            break
        for path in sorted((out / "results").glob("*.json"))[after - 1:]:
            path.unlink()
    return code


def stopped_once(arguments: list, out: pathlib.Path, after: int, how: signal.Signals) -> int:
    process = subprocess.Popen([PROGRAM, *map(str, arguments)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list((out / "results").glob("*.json"))) < after:
        time.sleep(0.001)
    process.send_signal(how)
    return process.wait()


def check_resuming(model: pathlib.Path, out: pathlib.Path) -> None:
    grid = ["eval-passkey", "--model", model, "--exact", "--lengths", "300,400", "--depths", "3", "--trials", "4"]
    whole = done(*grid, "--out", out / "whole")
    assert len(whole["results"]) == 24 and all(r["prompt_tokens"] < r["context_length"] for r in whole["results"])
    parts = out / "parts"
    for after, how, code in ((3, signal.SIGKILL, -9), (9, signal.SIGTERM, 75)):
        assert stopped([*grid, "--out", parts], parts, after, how) == code
        cells = [json.loads(path.read_text()) for path in (parts / "results").glob("*.json")]
        assert after <= len(cells) < 24 and all("score" in cell for cell in cells)
    before = {path: path.stat().st_mtime_ns for path in (parts / "results").glob("*.json")}
    assert done(*grid, "--out", parts) == whole
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    xml.etree.ElementTree.parse(parts / "heatmap.svg")
    assert json.loads((parts / "results.json").read_text()) == whole
    assert "depth 50%" in run(*grid, "--out", parts).stdout
    refused(2, "settings.seed: 0 there, 7 now", *grid, "--out", parts, "--seed", "7")
    refused(2, "run.rope", *grid, "--out", parts, "--rope", "linear:2")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        model = tiny_model(out)
        check_resuming(model, out)
        lengths = done("eval-passkey", "--model", model, "--lengths", "600", "--trials", "2")["results"]
        assert len(lengths) == 2 and lengths[0]["depth_percent"] != lengths[1]["depth_percent"]
        chat = done("eval-passkey", "--model", model, "--lengths", "600", "--trials", "2", "--template", "vicuna")["results"]
        assert all(a["prompt_tokens"] > b["prompt_tokens"] for a, b in zip(chat, lengths))
        needle = done("eval-needle", "--model", model, "--lengths", "500,700", "--depths", "0,100")
        assert [r["context_length"] for r in needle["results"]] == [500, 500, 700, 700]
        (out / "book.txt").write_text("It rained. Nobody came, and the lamp went out! Why? " * 2000)
        own = ["--needle", "The safe opens with 4711.", "--question", "How does the safe open?", "--answer", "4711"]
        for lengths, cells in (("500", 5), ("300,500,1500", 15)):  # longer ones later, in the same folder
            mine = done("eval-needle", "--model", model, "--lengths", lengths, "--haystack", out / "book.txt", "--out",
                        out / "mine", *own)
            assert len(mine["results"]) == cells == len(list((out / "mine/results").iterdir()))
        for task in TASKS:
            results = done("eval-retrieval", "--model", model, "--task", task, "--lengths", "1900", "--trials", "1")["results"]
            assert len(results) == 1 and 1000 < results[0]["prompt_tokens"] < 1900, (task, results)
        base = ["eval-retrieval", "--model", model, "--task", "lines"]
        refused(2, "did you mean 'lines'", "eval-retrieval", "--model", model, "--task", "line", "--lengths", "900")
        refused(2, "too short for the lines task", *base, "--lengths", "120")
        refused(2, "are more than the 2048", *base, "--lengths", "1000,4000")
        refused(2, "lines has its own text", *base, "--lengths", "1000", "--haystack", "noise")
        refused(2, "--depths 50,120", "eval-needle", "--model", model, "--lengths", "500", "--depths", "50,120")
        refused(2, "given twice", "eval-needle", "--model", model, "--lengths", "500", "--depths", "50,50.001")
        (out / "there.json").write_text("{}")
        refused(2, "exists already", "eval-needle", "--model", model, "--lengths", "500", "--json", out / "there.json")
        refused(1, "cannot be made a folder", "eval-needle", "--model", model, "--lengths", "500", "--out", out / "there.json")
        refused(2, "belong together", "eval-needle", "--model", model, "--lengths", "500", "--needle", "x")
        refused(2, "unknown chat format", *base, "--lengths", "1000", "--template", "llama")
        refused(3, "nowhere.txt", "eval-needle", "--model", model, "--lengths", "500", "--haystack", out / "nowhere.txt")
        refused(3, "has no tokenizer", "eval-passkey", "--model", ROOT / "test/golden/models/llama", "--lengths", "600")
    print("retrieval: passed")


if __name__ == "__main__":
    main()
