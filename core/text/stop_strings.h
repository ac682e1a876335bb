// Texts at which an answer ends, looked for while it is generated: what could be the beginning of one is held back until
// it is certain, so that no part of a stop text is ever shown, however the tokens cut it.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace longlora::text {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {}  // none of them empty

  // What is certain to be shown with this piece. Everything from the first stop text on is dropped.
  [[nodiscard]] std::string push(std::string_view piece);
  [[nodiscard]] bool found() const { return found_; }
  // What was held back and was no stop text after all, as the answer ends here.
  [[nodiscard]] std::string finish();

 private:
  std::vector<std::string> strings_;
  std::string held_;
  bool found_ = false;
};

}  // namespace longlora::text
