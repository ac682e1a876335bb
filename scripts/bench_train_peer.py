"""One training run of the peer for `scripts/bench train`: transformers + PEFT, the way LongLoRA's fine-tune.py does it.

A Llama in bfloat16, LoRA on q, k, v and o, embedding and norms trained whole, gradient checkpointing, AdamW, gradient
clipping, S²-Attn by rolling half of the heads by half a group and reshaping into groups, over scaled_dot_product_attention.
A plain loop instead of the Trainer, which only saves the peer time. Needs an environment with torch, transformers and PEFT.
Prints one JSON line a step: {"step", "loss", "seconds"}.
"""
import argparse
import array
import json
import time

import peft
import torch
import transformers
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def s2_attention(group_ratio):
    """LongLoRA's shifted sparse attention, in the form of transformers' attention functions."""

    def shift(x, by):  # the second half of the heads, along the tokens
        plain, shifted = x.chunk(2, dim=1)
        return torch.cat((plain, shifted.roll(by, dims=2)), dim=1)

    def forward(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        rows, heads, length, width = query.shape
        group = int(length * group_ratio)
        assert length % group == 0, "the length must be a multiple of the group"
        if key.shape[1] != heads:
            key = key.repeat_interleave(heads // key.shape[1], dim=1)
            value = value.repeat_interleave(heads // value.shape[1], dim=1)

        def grouped(x):  # [rows, heads, length, width] → [rows * groups, heads, group, width]
            x = shift(x, -(group // 2)).view(rows, heads, length // group, group, width)
            return x.transpose(1, 2).reshape(-1, heads, group, width)

        out = torch.nn.functional.scaled_dot_product_attention(grouped(query), grouped(key), grouped(value),
                                                               is_causal=True, scale=scaling)
        out = out.view(rows, length // group, heads, group, width).transpose(1, 2).reshape(rows, heads, length, width)
        return shift(out, group // 2).transpose(1, 2).contiguous(), None

    return forward


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--data", required=True, help="flat uint16 token file")
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pattern", choices=["s2", "full"], default="s2")
    parser.add_argument("--group-ratio", type=float, default=0.25)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--rows", type=int, default=1, help="rows a step")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of weights and autocast")
    parser.add_argument("--full", action="store_true", help="train all weights, without LoRA and checkpointing")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    implementation = "sdpa"
    if arguments.pattern == "s2":
        implementation = "s2"
        ALL_ATTENTION_FUNCTIONS.register("s2", s2_attention(arguments.group_ratio))
        ALL_MASK_ATTENTION_FUNCTIONS.register("s2", lambda *args, **kwargs: None)
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype),
                                                              attn_implementation=implementation).to(arguments.device)
    model.config.use_cache = False
    if not arguments.full:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0,
                                                           target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
        for name, value in model.named_parameters():
            if "embed" in name or "norm" in name:
                value.requires_grad_()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=arguments.lr, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()

    tokens = array.array("H")
    with open(arguments.data, "rb") as file:
        tokens.frombytes(file.read(2 * arguments.rows * arguments.length * arguments.steps))
    for step in range(arguments.steps):
        size = arguments.rows * arguments.length
        row = torch.tensor(tokens[step * size:(step + 1) * size].tolist(), device=arguments.device).view(arguments.rows, -1)
        start = time.perf_counter()
        with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            loss = model(input_ids=row, labels=row).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()  # waits for the device
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"step": step + 1, "loss": value, "seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
