#!/usr/bin/env python3
"""sft through the program: on 200 generated instructions it lowers the loss on the answers of instructions that it did not
see; it goes on from an adapter of train with its context; stopped and resumed it ends with the same weights; --show marks
what is learned; and what cannot be is refused with the documented exit code."""
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from support.tiny_model import write_tiny_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/longlora"
COLOURS = "red green blue black white yellow".split()


def longlora(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


def run(verb: str, recipe: dict, folder: pathlib.Path, *flags: str, ok: bool = True) -> subprocess.CompletedProcess:
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({**recipe, "checkpoint": {"dir": str(folder), "every_steps": 5}}))
    result = longlora(verb, path, *flags)
    assert result.returncode == 0 or not ok, result.stderr
    return result


def stop(recipe: dict, folder: pathlib.Path, after: int) -> None:
    """Starts the run and sends SIGTERM once that many steps are in its log; again where it was over before that."""
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({**recipe, "checkpoint": {"dir": str(folder), "every_steps": 5}}))
    log = folder / "metrics.jsonl"
    for _ in range(20):
        process = subprocess.Popen([PROGRAM, "sft", path], stderr=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= after):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        if process.wait() != 0:
            break
        shutil.rmtree(folder)
    assert process.returncode == 75, process.returncode


def losses(folder: pathlib.Path, key: str) -> list:
    return [line[key] for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if key in line]


def entry(rng: random.Random, number: int, kind: int) -> dict:
    """Which thing has the colour asked for: in every format, with and without material."""
    things = [f"thing{rng.randrange(100)} is {colour}." for colour in rng.sample(COLOURS, 3)]
    thing, colour = (words := rng.choice(things).split())[0], words[2].strip(".")
    question, answer = f"Which thing is {colour}?", f"The thing that is {colour} is {thing}, as item {number % 7} says."
    if kind == 0:
        return {"instruction": "Below is a list.\n" + "\n".join(things) + "\nNow the list ends.\n" + question, "output": answer}
    if kind == 1:
        return {"instruction": question, "input": " ".join(things), "output": answer}
    if kind == 2:
        return {"input": " ".join(things) + "\n" + question, "output": answer}
    turns = [" ".join(things) + "\n" + question, answer, "Are you sure?", "Yes, I am sure."]
    if kind == 3:
        return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(turns)]}
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        rng = random.Random(5)
        entries = [entry(rng, i, i % 5) for i in range(240)]
        (out / "a.json").write_text(json.dumps(entries[:100]))
        (out / "b.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries[100:200]))
        (out / "held-out.json").write_text(json.dumps(entries[200:]))
        (out / "text.txt").write_text(" ".join(t for e in entries[:100] for t in map(str, e.values())))
        init = out / "init"
        write_tiny_model(init, max_position_embeddings=128)
        common = {"batch": {"sequences": 4, "micro": 2}, "optimizer": {"lr": 3e-3}, "seed": 3, "log": {"tensorboard": False},
                  "model": {"path": str(out / "base/final"), "dtype": "float32"}}
        text = {"data": {"train": [str(out / "text.txt")]}}
        talk = {"data": {"train": [str(out / "a.json"), str(out / "b.jsonl")], "valid": [str(out / "held-out.json")]},
                "sft": {"format": "longlora"}, "eval": {"every_steps": 5, "rows": 0}}

        run("train", {**common, **text, "model": {"init": str(init), "dtype": "float32"}, "context": {"length": 128},
                      "attention": {"pattern": "full"}, "tune": {"mode": "full"}, "schedule": {"steps": 10, "warmup_steps": 2}},
            out / "base")
        run("train", {**common, **text, "context": {"length": 512, "rope": {"type": "linear"}},
                      "schedule": {"steps": 3, "warmup_steps": 0}}, out / "extended")

        # On from the extended adapter, whose context and RoPE settings it takes over.
        recipe = {**common, **talk, "model": {**common["model"], "adapter": str(out / "extended/final")},
                  "tune": {"dropout": 0.1}, "attention": {"finish": 0.5}, "schedule": {"steps": 40, "warmup_steps": 2}}
        said = run("sft", recipe, out / "tuned").stderr
        assert "data.train: 200 samples, " in said and "data.valid: 40 samples, " in said, said
        assert "0 truncated, 0 dropped" in said and "% padding" in said and "as longlora in" in said, said
        valid = losses(out / "tuned", "valid_loss")
        assert valid[-1] < 0.5 * valid[0], valid
        before, after = (json.loads((out / name / "final/longlora.json").read_text()) for name in ("extended", "tuned"))
        assert before["rope"] == after["rope"] and before["context_length"] == after["context_length"] == 512, (before, after)
        print(f"held-out loss of the answers {valid[0]:.3f} -> {valid[-1]:.3f}")

        stop(recipe, out / "parts", 12)
        run("sft", recipe, out / "parts", "--resume")
        weights = [(out / name / "final/adapter_model.safetensors").read_bytes() for name in ("tuned", "parts")]
        assert weights[0] == weights[1], "the resumed run's weights differ"
        assert valid == losses(out / "parts", "valid_loss"), "the resumed run's log differs"

        # A new adapter on top of the extended one; both in order are the merged model.
        below = out / "extended/final"
        stacked = {**recipe, "model": {**common["model"], "stack_on": [str(below)]}, "tune": {"rank": 4, "also": ["norm"]},
                   "schedule": {"steps": 10, "warmup_steps": 0}}
        run("sft", stacked, out / "stacked")
        stop(stacked, out / "stacked-parts", 6)
        run("sft", stacked, out / "stacked-parts", "--resume")
        weights = [(out / name / "final/adapter_model.safetensors").read_bytes() for name in ("stacked", "stacked-parts")]
        assert weights[0] == weights[1], "the resumed stacked run's weights differ"
        base, both = ["--model", out / "base/final"], ["--adapter", below, "--adapter", out / "stacked/final"]
        merged = longlora("merge", *base, *both, "--out", out / "merged")
        assert merged.returncode == 0 and "verified: on" in merged.stdout, merged
        ppl = [json.loads(longlora("eval-ppl", *model, "--data", out / "text.txt", "--context", 256, "--dtype", "float32", "--json", "-").stdout)["results"][0]["loss"]
               for model in ([*base, *both], ["--model", out / "merged"], [*base, *both[:2]])]
        assert abs(ppl[0] - ppl[1]) < 1e-4 < 1e-2 < abs(ppl[0] - ppl[2]), ppl
        alone = longlora("generate", *base, *both[2:], "--prompt", "a")
        assert alone.returncode == 3 and "give that one before it" in alone.stderr, alone

        (out / "tuned/ppl").mkdir()
        longlora("eval-ppl", *base, "--data", out / "text.txt", "--context", 64, "--json", out / "tuned/ppl/base.json")
        (out / "tuned/mine.json").write_text("// a recipe with comments\n{}\n")  # is left out of the report
        written = [longlora("report", out / "tuned", out / "stacked", *flags).returncode for flags in ([], [], ["--overwrite"])]
        page = (out / "tuned/report.html").read_text()
        assert written == [0, 2, 0] and f"<td>{valid[-1]:.4f}</td>" in page and "ppl/base.json, text.txt" in page, written

        run("sft", recipe, out / "two", "--nproc", "2")  # rounding alone, over 40 steps (test/e2e/ranks.py looks closer)
        apart = max(abs(a - b) / b for a, b in zip(losses(out / "two", "valid_loss"), valid, strict=True))
        assert apart < 1e-4, apart
        print(f"on two ranks its losses are {apart:.1e} apart")

        shown = run("sft", recipe, out / "show", "--show", "2").stdout
        assert shown.count("\n--- ") == 1 and shown.startswith(f"--- {out / 'a.json'}: entry 1: "), shown
        output, second = entries[0]["output"], entries[1]
        assert f"{entries[0]['instruction']}[/INST][[{output}</s>]]\n" in shown, shown
        assert f"{second['instruction']} \n{second['input']} [/INST][[{second['output']}</s>]]\n" in shown, shown
        assert not (out / "show").exists()
        short = run("sft", {**recipe, "context": {"length": 64}, "model": common["model"]}, out / "show", "--show", "1").stdout
        assert "entry 1: 64 tokens" in short and f"[[{output}</s>]]" in short and "of material cut out" in short, short

        def refused(code: int, word: str, verb: str = "sft", *flags: str, **sections) -> None:
            changed = {key: {**recipe.get(key, {}), **value} for key, value in sections.items()}
            result = run(verb, {**recipe, **changed}, out / "bad", *flags, ok=False)
            assert result.returncode == code and word in result.stderr, (result.returncode, result.stderr)
            assert not (out / "bad").exists()
        refused(2, "sft.format=NAME, one of llama-2, ", sft={"format": "auto"})
        refused(2, "sft.format", sft={"format": "llama2"})
        refused(2, "data.packing: must be documents in sft", data={"packing": "stream"})
        refused(2, "sft.format: has no effect in 'longlora train'", "train")
        refused(2, "--show 0", "sft", "--show", "0")
        refused(3, "text.txt: instructions are read from .json and .jsonl", data={"train": [str(out / "text.txt")]})
        (out / "wrong.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "a", "answer": "b"}\n')
        refused(3, f"{out}/wrong.jsonl:2: entry 2: the key \"output\" is missing", data={"train": [str(out / "wrong.jsonl")]})
        (out / "mute.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}]}\n')
        refused(3, "mute.jsonl:1: entry 1: nothing in it is learned", data={"train": [str(out / "mute.jsonl")]})
        refused(3, "no sample is left", data={"train": [str(out / "mute.jsonl")]}, sft={"empty": "drop"})
        checked = [longlora("recipe", "check", out / "tuned.json", *flags).returncode for flags in ([], ["--sft"])]
        assert checked == [2, 0], checked
    print("sft: passed")


if __name__ == "__main__":
    sys.exit(main())
