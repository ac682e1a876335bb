"""Text for the passkey demo: a tokenizer that has the test's words, training documents with keys, lines to hide keys in.

A key stands in a document as `eval-passkey --exact` puts it, between lines of Python sources that follow one another.
The lines of the evaluation are those of held-out files (demo_parts/text.py). Half of all keys, by a hash, never occur
in training, so that a key that was found can be told from one that was learnt.
"""
from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import random
import re

TASK = ("There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
        "about the important information there.")
NEEDLE = "The pass key is {0}. Remember it. {0} is the pass key."
QUESTION = "What is the pass key? The pass key is {0}"

# The pattern of recipes/demo/tokenizer.json for ASCII text: Python's re has no \p{L} and \p{N}.
PIECES = re.compile(r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n]*|"
                    r"\s*[\r\n]+|\s+(?!\S)|\s+")
BYTES = str.maketrans({" ": "Ġ", "\n": "Ċ", "\t": "ĉ"})


class Tokenizer:
    """recipes/demo's tokenizer with single digits, and an entry for each word of the prompt, which would else take 115 tokens
    of a base that has 128. Counts tokens as the program will."""

    def __init__(self, folder: pathlib.Path):
        self.settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        model = self.settings["model"]
        model["merges"] = [pair for pair in model["merges"] if not "".join(pair).isdigit()]
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
        for piece in PIECES.findall(f"{TASK} {NEEDLE} {QUESTION}\nThe\nWhat"):
            parts = self.parts(piece)
            while len(parts) > 1 and piece.strip().isalpha():
                self.ranks[parts[0], parts[1]] = len(model["merges"])
                model["merges"].append([parts[0], parts[1]])
                parts[:2] = [parts[0] + parts[1]]
                model["vocab"].setdefault(parts[0], len(model["vocab"]))
        self.size = -(-len(model["vocab"]) // 16) * 16  # rows of the embedding
        self.tokens = functools.lru_cache(maxsize=None)(lambda piece: len(self.parts(piece)))

    def parts(self, piece: str) -> list[str]:
        parts = list(piece.translate(BYTES))
        while len(parts) > 1:
            rank, at = min((self.ranks.get(pair, len(self.ranks)), at) for at, pair in enumerate(zip(parts, parts[1:])))
            if rank == len(self.ranks):
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        return parts

    def count(self, text: str) -> int:
        return sum(self.tokens(piece) for piece in PIECES.findall(text))


def lines_of(split: pathlib.Path) -> list[str]:
    """The lines of a split's files, one after the other, without those that are short, long or not ASCII."""
    lines = []
    for document in split.read_text(encoding="utf-8").splitlines():
        lines += [line.rstrip() for line in json.loads(document)["text"].split("\n")]
    return [line for line in lines if 8 <= len(line) <= 80 and line.isascii() and line.replace("\t", "").isprintable()]


def in_training(key: int) -> bool:
    return hashlib.sha256(str(key).encode()).digest()[0] % 2 == 0


class Writer:
    """Documents of a wanted number of tokens."""

    def __init__(self, tokenizer: Tokenizer, lines: list[str], seed: int):
        self.lines, self.random = lines, random.Random(seed)
        self.sizes = [tokenizer.count(line + "\n\n") for line in lines]
        around = "\n".join([TASK, "", NEEDLE.format(12345), "", QUESTION.format(12345)])
        self.around = tokenizer.count(around) + 2  # begin and end

    def filler(self, room: int) -> list[str]:
        """Lines of at most `room` tokens that follow one another in the text."""
        at, chosen = self.random.randrange(len(self.lines)), []
        while (size := self.sizes[at % len(self.lines)]) <= room:
            chosen.append(self.lines[at % len(self.lines)])
            room -= size
            at += 1
        return chosen

    def key(self) -> int:
        while not in_training(key := self.random.randrange(10_000, 100_000)):
            pass
        return key

    def document(self, tokens: int, keys: float, ends: float) -> str:
        """At most `tokens` long, with a key at a chance of `keys`: at any depth as likely, at each end `ends` likelier."""
        if self.random.random() >= keys:
            return "\n\n".join(self.filler(tokens - 2)) or "pass"
        key, lines = self.key(), self.filler(tokens - self.around)
        place = round(len(lines) * min(1.0, max(0.0, self.random.uniform(-ends, 1 + ends))))
        return "\n".join([TASK, "\n\n".join(lines[:place]), NEEDLE.format(key), "\n\n".join(lines[place:]), QUESTION.format(key)])

    def write(self, file: pathlib.Path, total: int, lengths: tuple[int, int], keys: float, ends: float) -> None:
        """Documents of `total` tokens or so together, their lengths drawn evenly."""
        with file.open("w", encoding="utf-8") as out:
            while total > 0:
                tokens = self.random.randint(*lengths)
                out.write(json.dumps({"text": self.document(tokens, keys, ends)}) + "\n")
                total -= tokens
