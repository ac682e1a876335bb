"""Loads adapters and models that `longlora` wrote in transformers and PEFT, and prints their per-token losses.

Run in an environment with torch, transformers, PEFT and safetensors:

    longlora eval-ppl --model base --adapter runs/x/final --data test.bin --context 512 --per-token ours.jsonl --json -
    python scripts/goldens/check_written.py runs/x/final --base base --rope linear:4 \\
           --data test.bin --context 512 --windows 4 --compare ours.jsonl

A folder with adapter_config.json is loaded as an adapter over --base (or the base it names), any other as a model. A
missing or unexpected key, or a shape that differs, ends the check with exit 1. The losses have the form of `--per-token`:
one JSON line a window, {"start": i, "nll": [...]}. PEFT adapters carry no RoPE settings, so an adapter's own go in --rope.
"""
import argparse
import array
import json
import pathlib
import sys
import warnings

import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file


def read_tokens(path):
    """Ids from a JSON list, or a flat little-endian token file whose .idx.json may give the type (uint16 else)."""
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    index = path.parent / (path.name + ".idx.json")
    if not index.exists():
        index = path.with_suffix(".idx.json")
    kind = json.loads(index.read_text()).get("dtype", "uint16") if index.exists() else "uint16"
    ids = array.array({"uint16": "H", "uint32": "I"}[kind])
    ids.frombytes(path.read_bytes())
    return ids.tolist()


def load_model(folder, dtype, rope):
    config = transformers.AutoConfig.from_pretrained(folder)
    if rope:
        law, factor = rope.split(":")
        config.rope_parameters = {**(config.rope_parameters or {}), "rope_type": law, "factor": float(factor)}
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype,
                                                                    output_loading_info=True)
    faults = [f"{key}: {sorted(map(str, info[key]))}" for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
              if info[key]]
    return model.eval(), faults


def load_adapter(folder, base, dtype, rope):
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    model, faults = load_model(base or named, dtype, rope)
    adapted = peft.get_peft_model(model, peft.PeftConfig.from_pretrained(folder))
    stored = load_file(folder / "adapter_model.safetensors")
    wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    faults += [f"missing in the adapter: {key}" for key in sorted(set(wanted) - set(stored))]
    faults += [f"unexpected in the adapter: {key}" for key in sorted(set(stored) - set(wanted))]
    faults += [f"{key}: shape {tuple(stored[key].shape)}, expected {tuple(wanted[key].shape)}"
               for key in sorted(set(stored) & set(wanted)) if stored[key].shape != wanted[key].shape]
    if not faults:
        result = peft.set_peft_model_state_dict(adapted, stored)
        faults += [f"unexpected when loading: {key}" for key in result.unexpected_keys]
    return adapted.eval(), faults


@torch.no_grad()
def losses(model, tokens, context, stride, windows):
    last = len(tokens) - context
    for start in range(0, last + 1, stride or context):
        if windows and start // (stride or context) >= windows:
            break
        row = torch.tensor([tokens[start:start + context]])
        logits = model(row, use_cache=False).logits
        logits = logits if logits.dtype == torch.float64 else logits.float()
        nll = torch.nn.functional.cross_entropy(logits[0, :-1], row[0, 1:], reduction="none")
        yield {"start": start, "nll": nll.tolist()}


def compare(found, path):
    """Largest and root-mean-square difference from the losses that `longlora eval-ppl --per-token` wrote."""
    theirs = {}
    for line in pathlib.Path(path).read_text().splitlines():
        if line.strip():
            entry = json.loads(line)
            theirs.setdefault((entry["start"], len(entry["nll"])), entry["nll"])
    differences = []
    for entry in found:
        other = theirs.get((entry["start"], len(entry["nll"])))
        if other is not None:
            differences += [abs(a - b) for a, b in zip(entry["nll"], other)]
    if not differences:
        return "no window in common"
    rms = (sum(d * d for d in differences) / len(differences)) ** 0.5
    return f"{len(differences)} losses in common: largest difference {max(differences):.3e}, rms {rms:.3e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--base", help="base model of adapters (default: the one the adapter names)")
    parser.add_argument("--rope", metavar="TYPE:FACTOR", help="RoPE settings laid over the base's, as in eval-ppl")
    parser.add_argument("--data", help="token file (.bin) or JSON list of ids; without it only the keys are checked")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--stride", type=int, default=0, help="0: the context")
    parser.add_argument("--windows", type=int, default=0, help="0: all")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float64"], default="float32")
    parser.add_argument("--compare", help="file that `longlora eval-ppl --per-token` wrote for the same windows")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    failed = False
    for folder in arguments.folders:
        dtype = getattr(torch, arguments.dtype)
        if (folder / "adapter_config.json").exists():
            model, faults = load_adapter(folder, arguments.base, dtype, arguments.rope)
        else:
            model, faults = load_model(folder, dtype, arguments.rope)
            for file in sorted(folder.glob("model*.safetensors")):
                with safe_open(file, "pt") as opened:  # older transformers refuses files without it
                    if (opened.metadata() or {}).get("format") != "pt":
                        faults.append(f"{file.name}: metadata lacks format: pt")
        for fault in faults:
            print(f"{folder}: {fault}", file=sys.stderr)
        failed = failed or bool(faults)
        print(f"{folder}: {'FAULTY' if faults else 'all keys present, none unexpected'}", file=sys.stderr)
        if arguments.data and not faults:
            found = list(losses(model, read_tokens(arguments.data), arguments.context, arguments.stride, arguments.windows))
            for entry in found:
                print(json.dumps(entry))
            if arguments.compare:
                print(f"{folder}: {compare(found, arguments.compare)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
