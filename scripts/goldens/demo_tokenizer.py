#!/usr/bin/env python3
"""Trains the tokenizer of the demo: recipes/demo/tokenizer.json and tokenizer_config.json.

A byte-level BPE with exactly 1024 entries: <s> = 0, </s> = 1, the 256 bytes, 766 merges, cut into words by Llama-3's
expression. Its text is Python's standard library as installed beside the interpreter that runs this (tests included),
four spaces written as one tab, as the demo trains on it. Run by hand in an environment with `tokenizers`; the result
is checked in, so the demo itself needs no Python package.
"""
import json
import sysconfig
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCAB = 1024
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sources():
    """The library's .py files in a fixed order; the few that are not UTF-8 (tests of encodings) are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            yield path.read_text(encoding="utf-8").replace("    ", "\t")
        except UnicodeDecodeError:
            continue


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        sources(),
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=[AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    assert tokenizer.get_vocab_size() == VOCAB, tokenizer.get_vocab_size()
    assert (tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")) == (0, 1)

    out = Path(__file__).resolve().parents[2] / "recipes" / "demo"
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

    size = tokens = 0
    for text in sources():
        size += len(text.encode())
        tokens += len(tokenizer.encode(text, add_special_tokens=False).ids)
    print(f"{VOCAB} entries, {size} bytes, {tokens} tokens, {size / tokens:.2f} bytes a token")


if __name__ == "__main__":
    main()
