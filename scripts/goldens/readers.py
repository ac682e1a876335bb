"""What different versions of transformers make of the RoPE settings in a config.json.

One version, as JSON lines (per length the frequencies and the factor on cos and sin that its own rotary embedding applies):
    python scripts/goldens/readers.py read FOLDER...
Several, as a table against the last one named; "same" is every frequency within --tolerance of it, at every length:
    python scripts/goldens/readers.py compare FOLDER... --reader "env PYTHONPATH=older python" --reader python

A reader is a command that starts Python with torch and one transformers (4.44 or newer). Run by hand; compare ends with
exit 1 where a reader differs. The folders need nothing but config.json; LlamaForCausalLM and MistralForCausalLM are known.
"""
import argparse
import importlib
import inspect
import json
import logging
import math
import pathlib
import shlex
import subprocess
import sys


def lengths(folder):
    """Half the original length, all of it, one token more, halfway to the extended length, and that; from the file alone."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    longest = config["max_position_embeddings"]
    original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings") or longest
    extended = max(longest, int(original * rope.get("factor", 1.0) + 1e-6))
    return sorted({original // 2, original, min(original + 1, extended), (original + extended) // 2, extended})


def rotary_of(config):
    """This version's rotary embedding for the config's model type."""
    kind = config.model_type
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    maker = getattr(module, f"{kind.capitalize()}RotaryEmbedding")
    if "config" in inspect.signature(maker.__init__).parameters:
        return maker(config=config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return maker(head_dim, max_position_embeddings=config.max_position_embeddings, base=config.rope_theta)


def applied(config, length):
    """Frequencies and factor from the cos and sin of a row of `length` tokens: position 1 has the angles themselves."""
    import torch
    cos, sin = rotary_of(config)(torch.zeros(1, dtype=torch.float32), torch.tensor([[1, length - 1]]))
    cos, sin = cos[0, 0].double(), sin[0, 0].double()
    half = cos.numel() // 2
    return {"inverse": torch.atan2(sin, cos)[:half].tolist(), "attention": math.hypot(cos[0].item(), sin[0].item())}


def read(folders):
    import transformers
    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.add_handler(handler)
    for folder in folders:
        found = {"version": transformers.__version__, "folder": str(folder)}
        warnings.clear()
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
            newer = int(transformers.__version__.split(".")[0]) > 4  # older ones carry rope_parameters along, unread
            found["max_position_embeddings"] = config.max_position_embeddings
            found["rope_theta"] = config.rope_parameters["rope_theta"] if newer else config.rope_theta
            found["lengths"] = {length: applied(config, length) for length in lengths(folder)}
        except Exception as error:  # a version that cannot read the file is a finding
            found["error"] = f"{type(error).__name__}: {error}"
        found["warnings"] = sorted(set(warnings))
        print(json.dumps(found))


def differences(found, reference, tolerance):
    """What a reader makes of a folder that the reference does not, in words; empty: nothing."""
    if "error" in found or "error" in reference:
        return [found["error"] if "error" in found else "the reference fails: " + reference["error"]]
    out = [f"{key} {found[key]} for {reference[key]}" for key in ("max_position_embeddings", "rope_theta")
           if found[key] != reference[key]]
    by_finding = {}  # what is wrong -> at which lengths
    for length, here in found["lengths"].items():
        there = reference["lengths"][length]
        ratio = [a / b for a, b in zip(here["inverse"], there["inverse"])]
        off = [i for i, r in enumerate(ratio) if abs(r - 1.0) > tolerance]
        if off:
            worst = max(off, key=lambda i: abs(ratio[i] - 1.0))
            by_finding.setdefault(f"{len(off)} of {len(ratio)} frequencies, pairs {off[0]} to {off[-1]}, "
                                  f"pair {worst} by {ratio[worst]:.6g}", []).append(length)
        if abs(here["attention"] / there["attention"] - 1.0) > tolerance:
            by_finding.setdefault(f"factor {here['attention']:.6g} for {there['attention']:.6g}", []).append(length)
    for finding, at in by_finding.items():
        everywhere = len(at) == len(found["lengths"])
        out.append(("every length: " if everywhere else ", ".join(at) + " tokens: ") + finding)
    return out


def compare(folders, readers, tolerance, show_warnings):
    results = []  # one dictionary folder -> what was read, for each reader
    for reader in readers:
        command = shlex.split(reader) + [__file__, "read"] + [str(folder) for folder in folders]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        results.append({row["folder"]: row for row in rows})
    names = [next(iter(result.values()))["version"] for result in results]
    width = max(len(str(folder)) for folder in folders)
    print(" " * width, *(f"{name:>9}" for name in names))
    details, failed = {}, False  # folder and what was found -> the versions
    for folder in map(str, folders):
        cells = []
        for name, result in zip(names, results):
            found = differences(result[folder], results[-1][folder], tolerance)
            cells.append("fails" if "error" in result[folder] else "DIFFERS" if found else "same")
            failed = failed or bool(found)
            if show_warnings:
                found += [f"warns: {line}" for line in result[folder]["warnings"]]
            for line in found:
                details.setdefault((folder, line), []).append(name)
        print(f"{folder:{width}}", *(f"{cell:>9}" for cell in cells))
    for (folder, line), versions in details.items():
        print(f"{folder}, {' '.join(versions)}: {line}")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode in ("read", "compare"):
        sub = modes.add_parser(mode)
        sub.add_argument("folders", nargs="+", type=pathlib.Path, metavar="FOLDER")
        if mode == "compare":
            sub.add_argument("--reader", action="append", required=True, metavar="COMMAND", help="the last is the reference")
            sub.add_argument("--tolerance", type=float, default=2e-6, help="relative")
            sub.add_argument("--warnings", action="store_true", help="print what each version warns of, too")
    arguments = parser.parse_args()
    if arguments.mode == "read":
        return read(arguments.folders)
    return compare(arguments.folders, arguments.reader, arguments.tolerance, arguments.warnings)


if __name__ == "__main__":
    sys.exit(main())
