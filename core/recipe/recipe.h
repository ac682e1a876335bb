// A recipe: everything that a run is, as plain values. Filled, checked, printed and documented by the one
// field table (core/recipe/fields.cpp), which also has the meaning and the choices of every key; the defaults
// are the initialisers below.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace longlora::recipe {

struct Model {
  std::string path, init, adapter;    // empty: none
  std::vector<std::string> stack_on;  // adapter folders
  std::string dtype = "auto";
  std::string quantize = "none";
  std::string device = "auto";
};

struct Rope {
  std::string type = "model";    // the model's own
  std::optional<double> factor;  // empty: "auto", as in all of these
  std::optional<double> theta;
  std::optional<double> attention_factor;                              // yarn, longrope
  std::optional<double> beta_fast, beta_slow, mscale, mscale_all_dim;  // yarn
  bool truncate = true;                                                // yarn
  std::vector<double> short_factor, long_factor;                       // longrope
  std::optional<double> low_freq_factor, high_freq_factor;             // llama3
};

struct Context {
  int64_t length = 0;  // tokens a row; 0: what the model was trained for
  Rope rope;
};

struct Attention {
  std::string pattern = "s2";
  double group_ratio = 0.25;  // S2 group over context length
  int64_t group_size = 0;     // S2 group in tokens; 0: from group_ratio
  double finish = 0.0;        // last share of the steps trained with full attention
  std::string backend = "auto";
};

struct Tune {
  std::string mode = "lora";
  int64_t rank = 8;
  double alpha = 16;
  double dropout = 0.0;
  bool rslora = false;
  std::vector<std::string> targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  std::vector<std::string> also = {"embed", "norm"};  // trained whole beside LoRA
};

struct Data {
  std::vector<std::string> train, valid;  // files or globs
  std::string packing = "stream";
  std::string tokenizer;  // folder; empty: the model's
  bool shuffle = true;
};

struct Sft {  // only for `longlora sft`
  std::string format = "auto";
  std::string too_long = "truncate-material";
  std::string empty = "error";
};

struct Batch {
  int64_t sequences = 64;  // rows in a global step
  int64_t micro = 1;       // rows computed at once
};

struct Optimizer {
  std::string name = "adamw";
  double lr = 2e-5;
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;  // 0: no clipping
};

struct Schedule {
  std::string type = "constant_with_warmup";
  int64_t warmup_steps = 20;
  int64_t steps = 1000;
};

struct Parallel {
  std::string shard = "auto";
  int64_t sequence = 1;
};

struct Memory {
  std::string recompute = "auto";
  std::string offload = "none";
};

struct Eval {
  int64_t every_steps = 0;  // 0: no validation
  int64_t rows = 64;        // validation rows a measurement, 0: all
};

struct Checkpoint {
  std::string dir;
  int64_t every_steps = 100;  // 0: only at the end
  int64_t keep = 2;
};

struct Log {
  int64_t every_steps = 1;
  bool tensorboard = true;
};

struct Recipe {
  Model model;
  Context context;
  Attention attention;
  Tune tune;
  Data data;
  Sft sft;
  Batch batch;
  Optimizer optimizer;
  Schedule schedule;
  Parallel parallel;
  Memory memory;
  Eval eval;
  Checkpoint checkpoint;
  Log log;
  int64_t seed = 42;
};

}  // namespace longlora::recipe
