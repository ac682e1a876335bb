"""The folder of a tiny Llama without weights, for runs that train it from random ones: the demo's config and tokenizer at
hidden size 64 and two layers."""
import json
import pathlib

DEMO = pathlib.Path(__file__).resolve().parents[3] / "recipes/demo"


def write_tiny_model(folder: pathlib.Path, **changes) -> None:
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((DEMO / file).read_bytes())
    config = json.loads((DEMO / "config.json").read_text())
    config.update(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  head_dim=16, **changes)
    (folder / "config.json").write_text(json.dumps(config))
