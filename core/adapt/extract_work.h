// The finished factors of an extraction under way: a folder `.NAME.extract` beside the output with a safetensors file a matrix
// and extract.json, which says of what and how. Another run of the same command finds them and goes on; the folder goes when
// the adapter is complete.
#pragma once
#include <ATen/ATen.h>

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "core/adapt/extract.h"
#include "core/base/file.h"
#include "core/io/file_lock.h"

namespace longlora::adapt {

class ExtractWork {
 public:
  // Creates or opens the folder for `out`. `settings`: an object that two runs must have in common for one to go on with what
  // the other made. Exit 2 naming the first setting that is another, exit 1 when a run is under way there.
  ExtractWork(const fs::path& out, const nlohmann::ordered_json& settings);

  // a [r, in], b [out, r] of a matrix, with what is known of it. Complete on the disk afterwards.
  void save(const ExtractedMatrix& matrix, const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype) const;
  // What save() got, if it got it. A damaged file counts as none.
  [[nodiscard]] std::optional<ExtractedMatrix> find(const std::string& module) const;
  [[nodiscard]] io::SafetensorsFile open(const std::string& module) const;  // tensors "a" and "b"

  [[nodiscard]] const fs::path& folder() const { return folder_; }
  [[nodiscard]] bool empty() const;  // no matrix was saved
  void remove() const;               // the whole folder

 private:
  [[nodiscard]] fs::path file(const std::string& module) const;
  fs::path folder_;
  std::optional<io::FileLock> lock_;
};

}  // namespace longlora::adapt
