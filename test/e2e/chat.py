#!/usr/bin/env python3
"""generate through the program: a piped conversation says what transformers says, and what each turn's whole conversation
gives by itself from --prompts; files, commands, stop texts and what cannot be."""
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM, GOLDEN = ROOT / "build/longlora", ROOT / "test/golden/chat"


def generate(*arguments, said: str = "", code: int = 0) -> subprocess.CompletedProcess:
    result = subprocess.run([PROGRAM, "generate", "--dtype", "float32", *map(str, arguments)], input=said, capture_output=True, text=True)
    assert result.returncode == code, (arguments, result.returncode, result.stderr)
    return result


def stopped(number: int, out: pathlib.Path, *arguments) -> None:
    """A piped conversation that a signal ends between two messages was not finished."""
    with open(out / "said.txt", "w+") as errors:
        talk = subprocess.Popen([PROGRAM, "generate", "--dtype", "float32", *map(str, arguments), "--chat"], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=errors, text=True)
        talk.stdin.write("Hello\n")
        talk.stdin.flush()
        assert talk.stdout.readline(), "no answer"
        talk.send_signal(number)
        code = talk.wait(60)
        errors.seek(0)
        assert code == 75 and "not answered" in errors.read(), (number, code)


def lines(text: str) -> list:
    return [json.loads(line) for line in text.splitlines()]


def main() -> None:
    golden = json.loads((GOLDEN / "expected.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        model = ["--model", GOLDEN, "--max-new-tokens", 10]
        prompts = []
        for number, turns in enumerate(golden["conversations"]):
            first = turns[0]["messages"][0]
            system = ["--system", first["content"]] if first["role"] == "system" else []
            said = [turn["messages"][-1]["content"] for turn in turns]
            # Strips of white space are Llama-3's template's, so a line does not need them.
            shown = generate(*model, "--chat", *system, said="\n".join(said) + "\n").stdout
            assert shown == "".join(turn["text"] + "\n" for turn in turns), shown
            told = lines(generate(*model, "--chat", *system, "--json", "-", "--prompt", said[0], said="\n".join(said[1:])).stdout)
            assert [turn["tokens"] for turn in told] == [turn["tokens"] for turn in turns], told
            assert [turn["prompt_tokens"] for turn in told] == [len(turn["ids"]) for turn in turns], told
            assert told[0]["reused_tokens"] == 0 and all(turn["reused_tokens"] > 20 for turn in told[1:]), told
            prompts += [{"messages": turn["messages"], "id": f"{number}.{i}"} for i, turn in enumerate(turns)]
        wanted = [turn for turns in golden["conversations"] for turn in turns]
        (out / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n\n" for p in [*prompts, {"prompt": "Attention inside"}]))
        generate(*model, "--prompts", out / "prompts.jsonl", "--json", out / "new/answers.jsonl")  # the folder is made
        answers = lines((out / "new/answers.jsonl").read_text())
        assert [a["index"] for a in answers] == list(range(7)) and [a.get("id") for a in answers] == [p["id"] for p in prompts] + [None]
        assert [a["tokens"] for a in answers[:6]] == [turn["tokens"] for turn in wanted], answers
        assert {a["finish"] for a in answers} <= {"end", "length"} and all(a["tokens_per_s"] > 0 for a in answers), answers
        plain = json.loads(generate(*model, "--prompt", "Attention inside", "--json", "-").stdout)
        del plain["tokens_per_s"], answers[6]["tokens_per_s"], answers[6]["index"]
        computed = {plain.pop("dtype"), plain.pop("products")}  # said once, not for every prompt
        assert computed == {"float32", "native"} and plain == answers[6], (computed, plain, answers[6])

        # A stop text out of the middle of the answer, over more than one token; nothing of it is shown.
        text = plain["text"]
        stop = text[3:8]
        short = generate(*model, "--prompt", "Attention inside", "--stop", "never there", "--stop", stop, "--json", out / "short.json").stdout
        told = json.loads((out / "short.json").read_text())
        assert short == text[: text.index(stop)] + "\n" and told["text"] + "\n" == short and told["finish"] == "stop", (text, short, told)
        assert told["tokens"] == plain["tokens"][: len(told["tokens"])] and len(told["tokens"]) < 10, told

        # A file before the message, the same as one message; /reset; a message that looks like a command; /quit.
        (out / "paper.txt").write_text("def f(x):")
        one = lines(generate(*model, "--chat", "--json", "-", "--prompt-file", out / "paper.txt", "--prompt", "Hello").stdout)
        two = lines(generate(*model, "--chat", "--json", "-", said=f"x\n/reset\n/file {out}/paper.txt\nHello\n /help\n/quit\nnever\n").stdout)
        assert len(one) == 1 and len(two) == 3 and two[1]["tokens"] == one[0]["tokens"] and two[1]["prompt_tokens"] == one[0]["prompt_tokens"]

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)  # whatever started the test may ignore it
            stopped(number, out, *model)

        def refused(code: int, word: str, *arguments, said: str = "") -> None:
            result = generate(*arguments, said=said, code=code)
            assert word in result.stderr, result.stderr
        refused(2, "/hello: no such command", *model, "--chat", said="/hello\n")
        refused(2, "/file: which one?", *model, "--chat", said="/file\n")
        refused(2, "/file: which one?", *model, "--chat", said="/file \n")
        refused(3, "nothing.txt", *model, "--chat", said="/file nothing.txt\n")
        refused(2, "the model covers 256", *model, "--chat", said="a" * 2000 + "\n")
        refused(2, "one of --prompt, --prompt-file, --prompts and --chat", *model)
        refused(2, "one of --prompt, --prompt-file, --prompts and --chat", *model, "--prompts", out / "prompts.jsonl", "--chat")
        refused(2, "--system belongs to --chat", *model, "--prompt", "a", "--system", "b")
        refused(2, "--stop", *model, "--prompt", "a", "--stop", "")
        refused(2, "--stop: is not UTF-8", *model, "--prompt", "a", "--stop", b"\xbf".decode(errors="surrogateescape"))
        refused(2, "--repetition-penalty", *model, "--prompt", "a", "--repetition-penalty", "0")
        refused(2, "unknown chat format 'lama-2'", *model, "--chat", "--format", "lama-2")
        refused(2, "exists already", *model, "--prompts", out / "prompts.jsonl", "--json", out / "new/answers.jsonl")
        (out / "long.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n" + json.dumps({"prompt": "a" * 3000}) + "\n")
        result = generate(*model, "--prompts", out / "long.jsonl", code=2)
        assert f"{out}/long.jsonl:2: " in result.stderr and result.stdout == "", result  # before anything is answered
        (out / "bad.jsonl").write_text('{"prompt": "a"}\n{"promt": "b"}\n')
        refused(3, f"{out}/bad.jsonl:2: one of the keys", *model, "--prompts", out / "bad.jsonl")
        bare = out / "bare"
        shutil.copytree(GOLDEN, bare)
        settings = json.loads((bare / "tokenizer_config.json").read_text())
        del settings["chat_template"]
        (bare / "tokenizer_config.json").write_text(json.dumps(settings))
        refused(2, "no chat template; say which format to use: --format=NAME", "--model", bare, "--chat")
    print("chat: passed")


if __name__ == "__main__":
    sys.exit(main())
