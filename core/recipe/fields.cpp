// The table itself: one entry a key.
#include "core/recipe/fields.h"

namespace longlora::recipe {
namespace {

Limits one_of(std::vector<std::string> choices) {
  Limits limits;
  limits.choices = std::move(choices);
  return limits;
}
Limits at_least(double low) {
  Limits limits;
  limits.low = low;
  return limits;
}
Limits above(double low) {
  Limits limits = at_least(low);
  limits.low_open = true;
  return limits;
}
Limits between(double low, double high) {
  Limits limits = at_least(low);
  limits.high = high;
  return limits;
}
Limits share(double high) {  // (0, high]
  Limits limits = above(0);
  limits.high = high;
  return limits;
}
Limits below(double low, double high) {  // [low, high)
  Limits limits = between(low, high);
  limits.high_open = true;
  return limits;
}
Limits pair(Limits limits) {
  limits.entries = 2;
  return limits;
}

}  // namespace

const std::vector<Section>& sections() {
  static const std::vector<Section> table = {
      {"", "The whole run"},
      {"model", "Which model is trained, and in which precision"},
      {"context", "The length that the model is to learn"},
      {"context.rope", "How rotary positions are stretched to that length"},
      {"attention", "Which tokens attend to which while training (measuring always uses full attention)"},
      {"tune", "What is trained"},
      {"data", "The text"},
      {"sft", "How conversations become samples; only for `longlora sft`"},
      {"batch", "How many rows make a step"},
      {"optimizer", "The update"},
      {"schedule", "The learning rate over the steps"},
      {"parallel", "How the work is spread over GPUs"},
      {"memory", "What is kept, computed again or moved away"},
      {"eval", "Validation while training, with full attention"},
      {"checkpoint", "What is saved, and where"},
      {"log", "What is written down while training"},
  };
  return table;
}

// A path and the member of that name.
#define AT(member) #member, [](Recipe & r) -> Slot { return &r.member; }

const std::vector<Field>& fields() {
  static const std::vector<Field> table = {
      {AT(model.path), "Hugging Face folder of the base model", {}},
      {AT(model.init), "folder with config.json and tokenizer: start from random weights instead of `model.path`", {}},
      {AT(model.adapter), "adapter folder to go on from, on top of `model.path`", {}},
      {AT(model.stack_on),
       "adapter folders whose changes the base gets first, in order; what is trained stands on them",
       {}},
      {AT(model.dtype),
       "compute dtype; auto: what this machine computes fastest within its memory; stored: as the base is stored",
       one_of({"auto", "stored", "bfloat16", "float16", "float32"})},
      {AT(model.quantize), "how frozen base weights are held: as they are, or in 4 bits", one_of({"none", "nf4"})},
      {AT(model.device), "where it runs; auto takes a GPU where there is one", one_of({"auto", "cpu", "cuda"})},

      {AT(context.length), "tokens in a row; 0: what the model was trained for", at_least(0)},
      {AT(context.rope.type), "scaling law; model keeps what the model's config says, none removes it",
       one_of({"model", "none", "linear", "ntk", "dynamic-frozen", "scaling-law", "dynamic", "yarn", "longrope",
               "llama3"})},
      {AT(context.rope.factor),
       "scaling factor; auto: `context.length` over the length the model was pre-trained for; dynamic-frozen: its "
       "factor in the dynamic NTK formula",
       at_least(1)},
      {AT(context.rope.theta), "base of the frequencies; auto: the model's own", above(0)},
      {AT(context.rope.attention_factor), "yarn, longrope: factor on cos and sin; auto: by the law's formula",
       above(0)},
      {AT(context.rope.beta_fast), "yarn: rotations above which a frequency is kept; auto: 32", above(0)},
      {AT(context.rope.beta_slow), "yarn: rotations below which a frequency is interpolated; auto: 1", above(0)},
      {AT(context.rope.mscale), "yarn: numerator of the attention factor; auto: not used", at_least(0)},
      {AT(context.rope.mscale_all_dim), "yarn: denominator of the attention factor; auto: not used", at_least(0)},
      {AT(context.rope.truncate), "yarn: round the bounds of the ramp to whole dimensions", {}},
      {AT(context.rope.short_factor), "longrope: one factor a frequency for rows within the original length", above(0)},
      {AT(context.rope.long_factor), "longrope: one factor a frequency for longer rows", above(0)},
      {AT(context.rope.low_freq_factor), "llama3: wavelengths above length / this are scaled; auto: 1", above(0)},
      {AT(context.rope.high_freq_factor), "llama3: wavelengths below length / this are kept; auto: 4", above(0)},

      {AT(attention.pattern), "S²-Attn in groups, or every earlier token", one_of({"s2", "full"})},
      {AT(attention.group_ratio), "S²-Attn group over `context.length`", share(1)},
      {AT(attention.group_size), "S²-Attn group in tokens, even; 0: from `attention.group_ratio`", at_least(0)},
      {AT(attention.finish), "the last share of the steps is trained with full attention", between(0, 1)},
      {AT(attention.backend), "implementation; auto picks the fastest that fits",
       one_of({"auto", "reference", "sdpa", "cpu", "cuda", "cudnn"})},

      {AT(tune.mode), "an adapter, or all weights", one_of({"lora", "full"})},
      {AT(tune.rank), "LoRA rank", at_least(1)},
      {AT(tune.alpha), "LoRA scale: the update is multiplied by alpha / rank", above(0)},
      {AT(tune.dropout), "dropout before the LoRA matrices", below(0, 1)},
      {AT(tune.rslora), "multiply by alpha / √rank instead", {}},
      {AT(tune.targets), "linear layers that get LoRA",
       one_of({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})},
      {AT(tune.also), "trained whole beside LoRA", one_of({"embed", "norm", "lm_head"})},

      {AT(data.train),
       "files or globs: .txt, .jsonl and .json (field `text`), each also .zst; .bin token files; for sft .json and "
       ".jsonl with conversations",
       {}},
      {AT(data.valid), "the same for validation", {}},
      {AT(data.packing),
       "stream: documents joined and cut into rows; documents: whole documents, each on its own, as always in sft",
       one_of({"stream", "documents"})},
      {AT(data.tokenizer), "tokenizer folder; empty: the model's", {}},
      {AT(data.shuffle), "shuffle rows by `seed`", {}},

      {AT(sft.format), "chat format; auto: the one of the tokenizer's chat template, where it is known",
       one_of({"auto", "llama-2", "llama-3", "mistral", "vicuna", "alpaca", "longlora"})},
      {AT(sft.too_long),
       "samples longer than a row: the middle of the longest user message is cut out, the sample is left out, "
       "or the run stops",
       one_of({"truncate-material", "drop", "error"})},
      {AT(sft.empty), "samples without an answer: the run stops, or they are left out", one_of({"error", "drop"})},

      {AT(batch.sequences), "rows in a step, over all GPUs", at_least(1)},
      {AT(batch.micro), "rows computed at once on one GPU", at_least(1)},

      {AT(optimizer.name), "the optimizer", one_of({"adamw"})},
      {AT(optimizer.lr), "learning rate after warm-up", above(0)},
      {AT(optimizer.betas), "decay of the two moments", pair(below(0, 1))},
      {AT(optimizer.eps), "added to the root of the second moment", above(0)},
      {AT(optimizer.weight_decay), "decoupled weight decay", at_least(0)},
      {AT(optimizer.max_grad_norm), "gradients are clipped to this norm; 0: not clipped", at_least(0)},

      {AT(schedule.type), "shape after the warm-up; linear and cosine end at 0",
       one_of({"constant_with_warmup", "linear", "cosine"})},
      {AT(schedule.warmup_steps), "steps of linear warm-up", at_least(0)},
      {AT(schedule.steps), "optimizer steps", at_least(1)},

      {AT(parallel.shard), "what is split over GPUs instead of repeated on each",
       one_of({"auto", "none", "optimizer", "model"})},
      {AT(parallel.sequence), "ranks that share one row", at_least(1)},

      {AT(memory.recompute), "what the backward pass computes again instead of keeping",
       one_of({"auto", "nothing", "gate_up", "all_but_attention", "everything"})},
      {AT(memory.offload), "what is held in main memory; model includes the optimizer's state",
       one_of({"none", "activations", "optimizer", "model"})},

      {AT(eval.every_steps), "steps between validations; 0: none", at_least(0)},
      {AT(eval.rows), "validation rows a time; 0: all", at_least(0)},

      {AT(checkpoint.dir), "folder of the run: metrics, checkpoints, final/", {}},
      {AT(checkpoint.every_steps), "steps between checkpoints; 0: only at the end", at_least(0)},
      {AT(checkpoint.keep), "checkpoints kept, the newest ones", at_least(1)},

      {AT(log.every_steps), "steps between lines of metrics.jsonl", at_least(1)},
      {AT(log.tensorboard), "write TensorBoard events too", {}},

      {AT(seed), "seed of everything random", at_least(0)},
  };
  return table;
}
#undef AT

}  // namespace longlora::recipe
