"""Long real text that every machine has: Python sources.

The standard library of the interpreter that runs this script comes first; where that is too little (minimal installs
leave its tests out), the sources of the torch package in .venv and other standard libraries follow, until there is
enough. The choice depends on nothing but the files: paths in a fixed order, the split by a hash of the path, four spaces
of indentation as one tab.
"""
from __future__ import annotations

import glob
import hashlib
import json
import pathlib
import re
import sysconfig

# Tables and generated data: long, but not text with anything to remember.
SKIP = re.compile(r"(^|/)(site-packages|dist-packages|__pycache__|encodings|pydoc_data|config-[^/]*|data)/")
SMALLEST, LARGEST = 3_000, 250_000  # bytes a file


class TooLittleText(Exception):
    pass


def sources(root: pathlib.Path) -> list[pathlib.Path]:
    """Folders with Python sources, the preferred first; each standard library only once."""
    found = [pathlib.Path(sysconfig.get_paths()["stdlib"])]
    found += [pathlib.Path(p) for p in sorted(glob.glob(str(root / ".venv/lib/python3*/site-packages/torch")))]
    for pattern in ("/usr/lib/python3.*", "/usr/local/lib/python3.*", "/usr/lib/python3/dist-packages"):
        found += [pathlib.Path(p) for p in sorted(glob.glob(pattern))]
    seen, unique = set(), []
    for folder in found:
        if folder.is_dir() and folder.resolve() not in seen:
            seen.add(folder.resolve())
            unique.append(folder)
    return unique


def tabs(text: str) -> str:
    """Leading groups of four spaces as tabs."""
    return re.sub(r"^(?: {4})+", lambda m: "\t" * (len(m.group()) // 4), text, flags=re.MULTILINE)


def share(name: str) -> int:
    """0 … 99 from a path, the same on every machine; decides the split."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 100


def files_of(folder: pathlib.Path, seen: set[bytes]):
    """(relative path, text) of the usable files of a folder, each content once."""
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if SKIP.search(name) or not path.is_file() or not SMALLEST <= path.stat().st_size <= LARGEST:
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, OSError):  # test files with other encodings on purpose
            continue
        digest = hashlib.sha256(text.encode()).digest()
        if digest not in seen:
            seen.add(digest)
            yield name, tabs(text.replace("\r\n", "\n"))


def excerpt(text: str, most: int) -> str:
    """At most `most` characters from the middle of a file, whole lines."""
    if len(text) <= most:
        return text
    begin = text.find("\n", (len(text) - most) // 2) + 1
    return text[begin:text.rfind("\n", begin, begin + most) + 1]


def collect(root: pathlib.Path, out: pathlib.Path, train_chars: int, held_out_chars: int, prompt_chars: int) -> dict:
    """Writes train.jsonl, validation.jsonl and test.jsonl, one {"text": …} a file, and prompt.txt. Returns what they hold.

    By the hash of its path a file belongs to the test split (6 of 100), to validation (4) or to training. Held-out files
    give one excerpt of at most 12,000 characters each, so that many files are seen in few windows.
    """
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    used, seen = [], set()
    for folder in sources(root):
        before = sum(map(len, splits.values()))
        for name, text in files_of(folder, seen):
            part = share(name)
            split = "test" if part < 6 else "validation" if part < 10 else "train"
            splits[split].append((hashlib.sha256(name.encode()).hexdigest(),
                                  text if split == "train" else excerpt(text, 12_000)))
        used.append({"folder": str(folder), "files": sum(map(len, splits.values())) - before})
        sizes = {split: sum(len(text) for _, text in files) for split, files in splits.items()}
        if sizes["train"] >= train_chars and min(sizes["validation"], sizes["test"]) >= held_out_chars:
            break
    if sizes["train"] < train_chars // 2 or min(sizes["validation"], sizes["test"]) < held_out_chars:
        raise TooLittleText(f"{sum(sizes.values()) / 1e6:.1f} MB of Python sources found, {train_chars / 2e6:.0f} MB are "
                            "needed: install the full standard library (Debian: libpython3-stdlib) or run scripts/setup, "
                            "which brings torch and its sources")
    out.mkdir(parents=True, exist_ok=True)
    held = {"sources": used}
    for split, files in splits.items():
        files.sort()  # by hash: no folder comes first
        limit, total, chosen = train_chars if split == "train" else held_out_chars, 0, []
        for _, text in files:
            if total >= limit:
                break
            chosen.append(text)
            total += len(text)
        (out / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in chosen), encoding="utf-8")
        held[split] = {"files": len(chosen), "characters": total}
    longest = max((text for _, text in splits["test"]), key=len)
    (out / "prompt.txt").write_text(longest[:longest.rfind("\n", 0, prompt_chars) + 1], encoding="utf-8")
    return held
