// Tensors as things to write (core/model/tensors.h).
#include "core/model/tensors.h"

#include <catch2/catch.hpp>

#include "test/unit/temporary_folder.h"

namespace longlora {

TEST_CASE("tensors that are made one at a time give the same file", "[safetensors][shard]") {
  const test::TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  const at::Tensor a = at::arange(6, at::kFloat).view({2, 3}), b = at::ones({4}), c = at::zeros({0});
  std::vector<std::string> made;
  int there = 0;
  const auto part = [&](const std::string& name, const at::Tensor& tensor) {
    io::TensorSource source = model::source(name, tensor.sizes(), at::kFloat, [&made, name, tensor] {
      made.push_back(name);
      return tensor;
    });
    source.begin = [begin = source.begin, &there] {
      CHECK(++there == 1);
      begin();
    };
    source.end = [end = source.end, &there] {
      --there;
      end();
    };
    return source;
  };
  io::write_safetensors(
      folder / "whole.safetensors",
      {model::source("b", b, at::kFloat), model::source("c", c, at::kFloat), model::source("a", a, at::kFloat)});
  io::write_safetensors(folder / "parts.safetensors", {part("b", b), part("c", c), part("a", a)});
  CHECK(read_file(folder / "whole.safetensors") == read_file(folder / "parts.safetensors"));
  io::write_safetensors({}, {part("b", b), part("c", c), part("a", a)});  // a rank that does not write
  CHECK(made == std::vector<std::string>{"a", "b", "c", "a", "b", "c"});
}

}  // namespace longlora
