#!/usr/bin/env python3
"""Bad input of every kind, through the program: one clear line that names the place, the documented exit code, and nothing
written or overwritten."""
import json
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/longlora"
MODEL = ROOT / "test/golden/models/llama"
TOKENIZER = ROOT / "recipes/demo"


def contents(folder: pathlib.Path) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Case:
    """A folder with a model, a token file and a recipe, all sound; each check breaks one thing."""

    def __init__(self, out: pathlib.Path):
        self.out = out
        self.model = out / "model"
        shutil.copytree(MODEL, self.model, ignore=lambda _, names: [n for n in names if n.startswith("adapter")])
        self.data = out / "text.bin"
        self.data.write_bytes(b"".join(struct.pack("<H", i * 7 % 90) for i in range(4000)))
        self.recipe = {
            "model": {"path": str(self.model), "dtype": "float32"},
            "context": {"length": 256, "rope": {"type": "linear"}},
            "data": {"train": [str(self.data)]},
            "batch": {"sequences": 2},
            "schedule": {"steps": 3, "warmup_steps": 0},
            "checkpoint": {"dir": str(out / "run"), "every_steps": 1},
            "log": {"tensorboard": False},
        }

    def run(self, *arguments, most_bytes: int = 0) -> tuple[int, list[str]]:
        """Exit code and the lines of standard error that begin with "error:" and all after. most_bytes: what a file may
        grow to, as on a full disk."""
        def limit() -> None:
            if most_bytes:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, preexec_fn=limit)
        lines = done.stderr.splitlines()
        first = next((i for i, line in enumerate(lines) if line.startswith("error:")), len(lines))
        return done.returncode, lines[first:]

    def train(self, *overrides, **more) -> tuple[int, list[str]]:
        path = self.out / "recipe.json"
        path.write_text(json.dumps(self.recipe))
        return self.run("train", path, *overrides, **more)

    def perplexity(self, data=None) -> tuple[int, list[str]]:
        return self.run("eval-ppl", "--model", self.model, "--data", data or self.data, "--context", "64")

    def config(self, **changes) -> None:
        path = self.model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def refused(result: tuple[int, list[str]], code: int, *words: str, lines: int = 1) -> None:
    got, errors = result
    assert got == code, f"exit code {got} instead of {code}: {errors}"
    assert len(errors) == lines, f"{len(errors)} lines instead of {lines}: {errors}"
    for word in words:
        assert word in "\n".join(errors), f"'{word}' is not in: {errors}"


@check
def a_sound_run_passes(case):
    assert case.perplexity()[0] == 0
    assert case.train()[0] == 0
    assert (case.out / "run/final/adapter_model.safetensors").exists()


@check
def a_truncated_weight_file(case):
    file = case.model / "model.safetensors"
    for keep in (0, 5, 40, len(file.read_bytes()) - 1):
        file.write_bytes(file.read_bytes()[:keep])
        refused(case.perplexity(), 3, "model.safetensors")
        refused(case.train(), 3, "model.safetensors")


@check
def a_hostile_weight_file(case):
    file = case.model / "model.safetensors"
    whole = file.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header, data = json.loads(whole[8:8 + size]), whole[8 + size:]

    def write(changed) -> None:
        text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data)

    name = next(n for n in header if n.endswith("q_proj.weight"))
    def with_entry(**changes) -> dict:
        return {**header, name: {**header[name], **changes}}

    broken = {
        "a header of 2^63 bytes": lambda: file.write_bytes(struct.pack("<Q", 1 << 63) + whole[8:]),
        "no JSON": lambda: write(b"{" + b"x" * 50),
        "nested without end": lambda: write(b"[" * 100_000),
        "an offset beyond the end": lambda: write(with_entry(data_offsets=[len(data), len(data) + 4096])),
        "a negative offset": lambda: write(with_entry(data_offsets=[-4096, 0])),
        "overlapping tensors": lambda: write(with_entry(data_offsets=[0, 4096])),
        "a shape whose product overflows": lambda: write(with_entry(shape=[1 << 62, 1 << 62])),
        "a negative dimension": lambda: write(with_entry(shape=[-32, -32])),
        "an unknown dtype": lambda: write(with_entry(dtype="F7")),
    }
    for what, damage in broken.items():
        damage()
        got, errors = case.perplexity()
        assert got == 3 and len(errors) == 1 and "model.safetensors" in errors[0], f"{what}: {got} {errors}"


@check
def weights_that_are_pickles(case):
    (case.model / "model.safetensors").rename(case.model / "pytorch_model.bin")
    refused(case.perplexity(), 3, "pytorch_model.bin", "safetensors")


@check
def shapes_against_the_config(case):
    case.config(intermediate_size=80)
    refused(case.perplexity(), 3, "gate_proj", "shape", "config.json")
    case.config(num_hidden_layers=3)
    refused(case.train(), 3, "model")


@check
def an_unknown_architecture_or_rope_type(case):
    case.config(rope_scaling={"rope_type": "spiral", "factor": 2.0})
    refused(case.perplexity(), 3, "config.json", "spiral", "linear")
    case.config(rope_scaling=None, architectures=["GPT2LMHeadModel"])
    refused(case.perplexity(), 3, "config.json", "GPT2LMHeadModel")
    refused(case.train('context.rope.type="spiral"'), 2, "spiral", "linear")


@check
def ids_beyond_the_vocabulary(case):
    case.data.write_bytes(struct.pack("<H", 5) * 600 + struct.pack("<H", 96))
    refused(case.perplexity(), 3, "text.bin", "96")
    refused(case.train(), 3, "text.bin", "96")


@check
def a_tokenizer_that_does_not_match(case):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / file, case.model)
    (case.out / "text.txt").write_text("some text " * 200)
    refused(case.train(f'data.train=["{case.out}/text.txt"]'), 3, "tokenizer", "1024", "96")
    for file in ("tokenizer.json", "tokenizer_config.json"):  # and a token file that another tokenizer made
        (case.model / file).unlink()
    assert case.run("prepare", "--tokenizer", ROOT / "test/golden/tokenizers/json-llama3", "--out", case.out / "other.bin",
                    case.out / "text.txt")[0] == 0
    refused(case.train(f'data.train=["{case.out}/other.bin"]'), 3, "other.bin", "tokenizer")


@check
def an_empty_data_set(case):
    shutil.copy(TOKENIZER / "tokenizer.json", case.model)
    shutil.copy(TOKENIZER / "tokenizer_config.json", case.model)
    case.config(vocab_size=1024)
    random = ['model.path=""', f'model.init="{case.model}"', 'tune.mode=full']  # weights for this tokenizer
    (case.out / "empty.txt").write_text("")
    refused(case.train(f'data.train=["{case.out}/empty.txt"]', *random), 3, "empty.txt")
    (case.out / "short.txt").write_text("too short")
    refused(case.train(f'data.train=["{case.out}/short.txt"]', *random), 3, "data.train")
    case.config(vocab_size=96)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (case.model / file).unlink()
    refused(case.train(f'data.train=["{case.out}/no*.txt"]'), 3, "no*.txt")
    refused(case.train("data.train=[]"), 2, "data.train")
    (case.out / "empty.bin").write_bytes(b"")
    refused(case.train(f'data.train=["{case.out}/empty.bin"]'), 3, "empty.bin")
    refused(case.run("eval-ppl", "--model", ROOT / "nothing", "--data", case.out / "none.txt", "--context", "64"), 3, "none.txt")


@check
def an_output_folder_that_cannot_be_written(case):
    (case.out / "file").write_text("")
    refused(case.train(f'checkpoint.dir="{case.out}/file/run"'), 1, "file/run")
    refused(case.run("merge", "--model", case.model, "--adapter", MODEL / "adapter-longlora", "--out", case.out / "file/x"),
            1, "file/x")


@check
def a_full_disk(case):
    before = set(p.name for p in case.out.iterdir())
    refused(case.run("merge", "--model", case.model, "--adapter", MODEL / "adapter-longlora", "--out", case.out / "merged",
                     most_bytes=50_000), 1, "merged")
    assert set(p.name for p in case.out.iterdir()) == before, "merge left something behind"
    refused(case.train(most_bytes=20_000), 1, "step-1")
    tuned = case.out / "tuned"
    assert case.run("merge", "--model", case.model, "--adapter", MODEL / "adapter-longlora", "--out", tuned)[0] == 0
    extract = ["extract-lora", "--base", case.model, "--tuned", tuned, "--out", case.out / "lora", "--rank", "2"]
    refused(case.run(*extract, most_bytes=2_000), 1, "cannot write", "the same command goes on", ".lora.extract")
    assert not (case.out / "lora").exists()
    assert not list((case.out / ".lora.extract").glob(".*.partial-*")), "half a file is left"
    assert case.run(*extract)[0] == 0
    assert not (case.out / ".lora.extract").exists()
    assert not list((case.out / "run").glob("step-*")) and not (case.out / "run/final").exists()


@check
def a_merge_killed_at_any_moment(case):
    seed = random.randrange(10**6)
    moments, merged = random.Random(seed), case.out / "merged"
    merge = [PROGRAM, "merge", "--model", case.model, "--adapter", MODEL / "adapter-longlora", "--out", merged]
    start = time.monotonic()
    assert case.run(*merge[1:])[0] == 0
    whole, longest = contents(merged), time.monotonic() - start
    kills = 0
    for _ in range(12):
        shutil.rmtree(merged, ignore_errors=True)
        process = subprocess.Popen(merge, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0, longest))
        process.kill()
        kills += process.wait() != 0
        assert not merged.exists() or contents(merged) == whole, f"seed {seed}: half a model after {kills} kills"
    shutil.rmtree(merged, ignore_errors=True)
    assert case.run(*merge[1:])[0] == 0 and contents(merged) == whole, f"seed {seed}"
    assert not list(case.out.glob(".merged*")), f"seed {seed}: something is left"


@check
def a_loss_that_is_not_a_number(case):
    refused(case.train("optimizer.lr=1e30", "schedule.steps=50"), 1, "step ", "rows",
            "optimizer.lr")
    assert not (case.out / "run/final").exists()
    assert list((case.out / "run").glob("step-*")), "the checkpoints before it are gone"


@check
def nothing_is_overwritten(case):
    assert case.train()[0] == 0
    before = contents(case.out)
    refused(case.train(), 2, "finished", "checkpoint.dir")
    assert case.train("--resume")[0] == 0
    refused(case.train("--resume", "optimizer.lr=0.5"), 2, "finished", "optimizer.lr", lines=2)
    refused(case.run("merge", "--model", case.model, "--adapter", case.out / "run/final", "--out", case.out / "run"), 2, "run")
    refused(case.run("merge", "--model", case.model, "--adapter", case.out / "run/final", "--out", case.model), 2, "model")
    refused(case.run("prepare", "--tokenizer", TOKENIZER, "--out", case.data, ROOT / "README.md"), 3, "README.md")
    refused(case.run("eval-ppl", "--model", case.model, "--data", case.data, "--context", "64", "--per-token", case.data), 2,
            "text.bin", "exists")
    refused(case.run("recipe", "cp", "longlora-7b-8k", case.out / "recipe.json"), 2, "recipe.json", "exists")
    assert contents(case.out) == before


@check
def an_extraction_that_cannot_be(case):
    out = case.out / "lora"
    def extract(*more):
        return case.run("extract-lora", "--base", case.model, "--tuned", case.model, "--out", out, *more)
    refused(extract(), 2, "--rank", "--energy", "--error")
    refused(extract("--rank", "4", "--energy", "0.5"), 2, "exactly one")
    refused(extract("--rank", "0"), 2, "--rank 0")
    refused(extract("--rank", "4", "--max-rank", "8"), 2, "--max-rank")
    refused(extract("--energy", "1.5"), 2, "--energy 1.5")
    refused(extract("--error", "0"), 2, "--error 0")
    refused(extract("--rank", "4", "--embed", "half"), 2, "--embed", "whole, lora, skip")
    refused(extract("--rank", "4", "--targets", "q_proj,,k_proj"), 2, "--targets")
    refused(extract("--rank", "4", "--portable", "--embed", "lora"), 2, "--portable", "--embed")
    refused(extract("--rank", "4", "--dtype", "int8"), 2, "--dtype", "bfloat16")
    refused(extract("--rank", "4"), 3, "nothing to extract")
    refused(case.run("extract-lora", "--base", case.model, "--tuned", case.out / "no", "--out", out, "--rank", "4"), 3, "no such")
    assert not [p for p in case.out.iterdir() if "lora" in p.name], "something was left behind"


@check
def an_adapter_of_another_base(case):
    assert case.train()[0] == 0
    other = case.out / "other"
    shutil.copytree(case.model, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    refused(case.run("merge", "--model", other, "--adapter", case.out / "run/final", "--out", case.out / "merged"), 2,
            "another base", "--embed")
    refused(case.run("eval-ppl", "--model", other, "--adapter", case.out / "run/final", "--data", case.data, "--context",
                     "64"), 3, "longlora.json", "another base")
    refused(case.run("eval-ppl", "--model", ROOT / "test/golden/models/llama-gqa", "--adapter", MODEL / "adapter-longlora",
                     "--data", case.data, "--context", "64"), 3, "k_proj")


@check
def a_context_that_the_model_does_not_cover(case):
    refused(case.run("eval-ppl", "--model", case.model, "--data", case.data, "--context", "128"), 2, "128", "--adapter",
            "--rope")
    del case.recipe["context"]["rope"]
    refused(case.train(), 2, "256", "linear")


@check
def words_that_belong_to_nothing(case):
    refused(case.run("eval-ppl", "--model", case.model, "--data", case.data, "other.bin", "--context", "64"), 2, "other.bin")
    refused(case.run("generate", "--model", case.model, "--prompt", "hello", "world"), 2, "world")
    refused(case.run("eval-ppl", "--model", case.model, "--data", case.data, "--context", "64", "--device", "tpu"), 2, "tpu")


@check
def output_that_arrives_nowhere(case):
    """Results that could not be written are an error; messages that could not be are not."""
    asked = [PROGRAM, "eval-ppl", "--model", case.model, "--data", case.data, "--context", "64", "--json", "-"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "standard output" in done.stderr, done
        assert subprocess.run([PROGRAM, "help"], stdout=full, stderr=subprocess.PIPE).returncode == 1
        assert subprocess.run(asked, stdout=subprocess.PIPE, stderr=full).returncode == 0
        assert subprocess.run([PROGRAM, "eval-ppl", "--model", case.out / "no"], stdout=full, stderr=full).returncode == 2
    path = case.out / "recipe.json"
    for number, redirected in enumerate(("2>/dev/full", "2>&-", "0<&- 1>&- 2>&-")):
        folder = case.out / f"run-{number}"
        path.write_text(json.dumps({**case.recipe, "checkpoint": {"dir": str(folder)}}))
        done = subprocess.run(["sh", "-c", f'"$1" train "$2" {redirected}', "sh", PROGRAM, path], capture_output=True)
        assert done.returncode == 0 and (folder / "final/adapter_model.safetensors").exists(), (redirected, done)
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == [1, 2, 3], (redirected, steps)
    case.recipe["checkpoint"] = {"dir": str(case.out / "run-pipe")}
    path.write_text(json.dumps(case.recipe))
    process = subprocess.Popen([PROGRAM, "train", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
    process.stderr.close()  # as `2>&1 | head -1` does
    assert process.wait(timeout=60) == 0 and (case.out / "run-pipe/final/adapter_model.safetensors").exists()


@check
def a_terminal_that_is_closed(case):
    """Its hang-up stops a run as Ctrl-C does, with a checkpoint; under nohup the run goes on."""
    case.recipe.update(schedule={"steps": 100000, "warmup_steps": 0})
    path, log = case.out / "recipe.json", case.out / "run/metrics.jsonl"
    for ignored in (False, True):
        case.recipe["checkpoint"] = {"dir": str(case.out / "run"), "every_steps": 100000}
        path.write_text(json.dumps(case.recipe))
        process = subprocess.Popen([PROGRAM, "train", path], stderr=subprocess.DEVNULL,
                                   preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL))
        steps = lambda: len(log.read_text().splitlines()) if log.exists() else 0
        try:
            while steps() < 2 and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGHUP)
            reached = steps()
            while ignored and steps() < reached + 5 and process.poll() is None:
                time.sleep(0.001)
            assert not ignored or process.poll() is None, process.returncode
            process.send_signal(signal.SIGTERM if ignored else 0)
            assert process.wait(timeout=60) == 75, process.returncode
        finally:
            process.kill()
        assert list((case.out / "run").glob("step-*")), "nothing was saved"
        shutil.rmtree(case.out / "run")


@check
def unknown_words(case):
    shown = subprocess.run([PROGRAM, "help", "train"], capture_output=True, text=True)
    assert "longlora train RECIPE [key=value ...] [options]" in shown.stdout, shown.stdout
    refused(case.run("trian"), 2, "trian", "train")
    refused(case.run("merge", "--modle", "x"), 2, "modle", "model")
    case.recipe["tune"] = {"rnk": 8, "alpha": "a lot"}
    refused(case.train(), 2, "recipe.json:1", "tune.rnk", "tune.rank", "tune.alpha", lines=3)


def main() -> None:
    for function in CHECKS:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                function(Case(pathlib.Path(temporary)))
            except AssertionError as error:
                raise SystemExit(f"{function.__name__}: {error}") from None
    print(f"bad input: {len(CHECKS)} kinds passed")


if __name__ == "__main__":
    main()
