"""`scripts/bench tokenize`: text to token ids, longlora's `prepare` against the reference library of the tokenizer's kind
(tokenizers for tokenizer.json, sentencepiece for tokenizer.model) on the same documents and threads.

longlora's time is that of the whole process, reading and writing files included; the peer's is that of encoding alone,
documents in memory. Run as a program by the peer's python it prints the peer's seconds and tokens.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import children

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "build/longlora"


def documents(text: pathlib.Path) -> list[str]:
    return [json.loads(line)["text"] for line in text.open(encoding="utf-8")]


def write_text(path: pathlib.Path, megabytes: int) -> None:
    """Python sources, the demo's text, a document a file, repeated with a line of its own until there is enough."""
    from demo_parts import text
    found = []
    for folder in text.sources(ROOT):
        found += [content for _, content in text.files_of(folder, set())]
    size, turn = 0, 0
    with path.open("w", encoding="utf-8") as out:
        while size < megabytes * 1_000_000:
            for content in found:
                line = json.dumps({"text": f"# copy {turn}\n{content}"}, ensure_ascii=False) + "\n"
                out.write(line)
                size += len(content.encode())
                if size >= megabytes * 1_000_000:
                    break
            turn += 1


def peer(tokenizer: str, text: str, threads: str) -> None:
    os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = threads, "true"
    texts, folder = documents(pathlib.Path(text)), pathlib.Path(tokenizer)
    if (folder / "tokenizer.model").exists():
        import sentencepiece
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        start = time.perf_counter()
        ids = model.encode(texts, num_threads=int(threads))
        seconds, tokens = time.perf_counter() - start, sum(map(len, ids))
    else:
        from tokenizers import Tokenizer
        model = Tokenizer.from_file(str(folder / "tokenizer.json"))
        model.encode_special_tokens = True  # "</s>" in a text is text, as in `prepare`
        start = time.perf_counter()
        ids = model.encode_batch(texts, add_special_tokens=False)
        seconds, tokens = time.perf_counter() - start, sum(len(e.ids) for e in ids)
    print(json.dumps({"seconds": seconds, "tokens": tokens}))


def bench(arguments) -> int:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        text = work / "text.jsonl"
        write_text(text, arguments.megabytes)
        size, count = sum(len(d.encode()) for d in documents(text)) / 1e6, len(documents(text))
        print(f"{size:.0f} MB of Python sources in {count} documents, {threads} threads; medians of {arguments.rounds} runs\n")
        print(f"{'tokenizer':30} {'longlora':>12} {'peer':>12} {'speed':>8}")
        for tokenizer in arguments.tokenizers:
            ours, theirs, tokens = [], [], {}
            for _ in range(arguments.rounds):
                out = work / "tokens.bin"
                for file in (out, work / "tokens.idx.json"):
                    file.unlink(missing_ok=True)
                start = time.perf_counter()
                children.run([PROGRAM, "prepare", "--tokenizer", tokenizer, "--bos", "no", "--out", out, text], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                ours.append(time.perf_counter() - start)
                tokens["longlora"] = json.loads((work / "tokens.idx.json").read_text())["tokens"] - count  # without EOS
                if arguments.peer_python:
                    done = children.run([arguments.peer_python, __file__, tokenizer, str(text), str(threads)], check=True,
                                          stdout=subprocess.PIPE, text=True)
                    result = json.loads(done.stdout)
                    theirs.append(result["seconds"])
                    tokens["peer"] = result["tokens"]
            if len(set(tokens.values())) > 1:
                sys.exit(f"bench: the two sides made different tokens: {tokens}")
            rate = size / statistics.median(ours)
            other = size / statistics.median(theirs) if theirs else None
            print(f"{pathlib.Path(tokenizer).name:30} {rate:7.1f} MB/s {f'{other:7.1f} MB/s' if other else '-':>12} "
                  f"{f'{rate / other:.1f}x' if other else '-':>8}", flush=True)
    return 0


if __name__ == "__main__":
    peer(*sys.argv[1:])
