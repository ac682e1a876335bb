"""Writes test/golden/merge/: a tiny bfloat16 base model, adapters as PEFT and LongLoRA save them, and the merged weights.

The merge is PEFT's merge_and_unload on a float64 copy of base and adapter, so that rounding it once gives what a merge
should give in any smaller type. Run by hand in an environment with transformers and PEFT (made with 5.17 and 0.21.2):
    python scripts/goldens/merge.py
"""
import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

GOLDEN = Path(__file__).resolve().parents[2] / "test" / "golden" / "merge"

shutil.rmtree(GOLDEN, ignore_errors=True)
torch.manual_seed(1)
base = LlamaForCausalLM(LlamaConfig(vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                    initializer_range=0.2)).to(torch.bfloat16)
base.generation_config = GenerationConfig(temperature=0.6, do_sample=True)
base.save_pretrained(GOLDEN / "base")

configs = {
    "lora": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8,
                       target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                       modules_to_save=["embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"]),
    "patterns": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, use_rslora=True,
                           target_modules=["q_proj", "down_proj", "embed_tokens"],
                           rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"down_proj": 3}),
    "dora": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, use_dora=True,
                       target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]),
    # two tokens more than the base has: embedding and head bring their own rows
    "resized": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"],
                          modules_to_save=["embed_tokens", "lm_head"]),
}


def base_for(name, dtype):
    model = LlamaForCausalLM.from_pretrained(GOLDEN / "base", dtype=dtype)
    if name == "resized":
        model.resize_token_embeddings(26, mean_resizing=False)
    return model


for name, config in configs.items():
    fresh = base_for(name, torch.float32)
    model = get_peft_model(fresh, config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)
    model.save_pretrained(GOLDEN / name)
    (GOLDEN / name / "README.md").unlink(missing_ok=True)
    config_file = GOLDEN / name / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace(str(GOLDEN), "test/golden/merge"))
    exact = PeftModel.from_pretrained(base_for(name, torch.float64), GOLDEN / name, autocast_adapter_dtype=False).double()
    merged = exact.merge_and_unload().state_dict()
    save_file({k: v.contiguous() for k, v in merged.items()}, GOLDEN / f"merged_{name}.safetensors")

# LongLoRA's own spelling of the first adapter: LoRA and the weights trained whole in a pickle each, the embedding with a row
# more for the [PAD] token that its script adds (get_trainable_weights.py in dvlab-research/LongLoRA).
(GOLDEN / "longlora").mkdir()
lora, whole = {}, {}
for key, value in load_file(GOLDEN / "lora" / "adapter_model.safetensors").items():
    if "lora_" in key:
        lora[key] = value
    else:
        whole[key.removeprefix("base_model.model.")] = value
embed = whole["model.embed_tokens.weight"]
whole["model.embed_tokens.weight"] = torch.cat([embed, embed.mean(0, keepdim=True)])
torch.save(lora, GOLDEN / "longlora" / "adapter_model.bin")
torch.save(whole, GOLDEN / "longlora" / "trainable_params.bin")
settings = json.loads((GOLDEN / "lora" / "adapter_config.json").read_text())
settings["modules_to_save"] = None
(GOLDEN / "longlora" / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")

# What a reader of tensors must not take: a pickle that would call something.
class Calls:
    def __reduce__(self):
        return print, ("called",)


torch.save({"weight": Calls()}, GOLDEN / "calls.bin")
torch.save({"weight": torch.arange(12.0).reshape(3, 4), "view": torch.arange(10, dtype=torch.bfloat16)[3:7],
            "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.float64)), "empty": torch.zeros(0, 5)},
           GOLDEN / "tensors.bin")
torch.save({"weight": torch.arange(12.0).reshape(3, 4).t()}, GOLDEN / "transposed.bin")
for path in GOLDEN.rglob("*"):
    path.chmod(0o755 if path.is_dir() else 0o644)
