"""Writes test/golden/merge/: a tiny bfloat16 base model, two adapters as PEFT saves them, and the merged weights.

The merge is PEFT's merge_and_unload on a float64 copy of base and adapter, so that rounding it once gives what a merge
should give in any smaller type. Run by hand in an environment with transformers and PEFT (made with 5.17 and 0.21.2):
    python scripts/goldens/merge.py
"""
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
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
}
for name, config in configs.items():
    fresh = LlamaForCausalLM.from_pretrained(GOLDEN / "base", dtype=torch.float32)
    model = get_peft_model(fresh, config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)
    model.save_pretrained(GOLDEN / name)
    (GOLDEN / name / "README.md").unlink(missing_ok=True)
    config_file = GOLDEN / name / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace(str(GOLDEN), "test/golden/merge"))
    exact = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(GOLDEN / "base", dtype=torch.float64),
                                      GOLDEN / name, autocast_adapter_dtype=False).double()
    merged = exact.merge_and_unload().state_dict()
    save_file({k: v.contiguous() for k, v in merged.items()}, GOLDEN / f"merged_{name}.safetensors")
for path in GOLDEN.rglob("*"):
    path.chmod(0o755 if path.is_dir() else 0o644)
