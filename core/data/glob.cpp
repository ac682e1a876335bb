#include "core/data/glob.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/base/error.h"

namespace longlora::data {
namespace {

bool is_pattern(std::string_view text) {
  return text.find_first_of("*?") != std::string_view::npos;
}

// Whether `name` (one path component) fits `pattern`, by backtracking to the last star.
bool fits(std::string_view pattern, std::string_view name) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  size_t p = 0, n = 0, star = std::string_view::npos, mark = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++mark;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

using Components = std::span<const fs::path>;

void find(const fs::path& folder, Components rest, std::vector<fs::path>& found);

// The entries of `folder` in any order; a folder that is missing or may not be read has none.
std::vector<fs::directory_entry> entries(const fs::path& folder) {
  std::error_code ec;
  std::vector<fs::directory_entry> all;
  for (fs::directory_iterator it(folder.empty() ? "." : folder, ec), end; !ec && it != end; it.increment(ec)) {
    all.push_back(*it);
  }
  return all;
}

void find_any_depth(const fs::path& folder, Components after, std::vector<fs::path>& found) {
  static const fs::path any[] = {"*"};
  find(folder, after.empty() ? Components(any) : after, found);
  for (const fs::directory_entry& entry : entries(folder)) {
    const fs::path name = entry.path().filename();
    if (name.string().starts_with('.') || entry.is_symlink() || !entry.is_directory()) continue;
    find_any_depth(folder / name, after, found);
  }
}

void find(const fs::path& folder, Components rest, std::vector<fs::path>& found) {
  std::error_code ec;
  if (rest.empty()) {
    if (fs::is_regular_file(folder, ec)) found.push_back(folder);
    return;
  }
  const std::string head = rest.front().string();
  const Components tail = rest.subspan(1);
  if (head == "**") return find_any_depth(folder, tail, found);
  if (!is_pattern(head)) return find(folder / head, tail, found);
  for (const fs::directory_entry& entry : entries(folder)) {
    const std::string name = entry.path().filename().string();
    if (fits(head, name)) find(folder / name, tail, found);
  }
}

std::vector<fs::path> expand_one(const std::string& pattern) {
  if (!is_pattern(pattern)) {
    std::error_code ec;
    const fs::file_status status = fs::status(pattern, ec);
    if (!fs::exists(status)) input_error("{}: no such file", pattern);
    if (fs::is_directory(status)) input_error("{0}: is a folder; name the files in it, such as '{0}/*.txt'", pattern);
    return {pattern};
  }
  const fs::path path(pattern);
  const std::vector<fs::path> parts(path.begin(), path.end());
  const size_t skip = path.is_absolute() ? 1 : 0;  // the root component
  std::vector<fs::path> found;
  find(path.root_path(), Components(parts).subspan(skip), found);
  if (found.empty()) input_error("{}: no file matches this pattern", pattern);
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.native() < b.native(); });
  found.erase(std::unique(found.begin(), found.end()), found.end());  // "**/**" finds a file more than once
  return found;
}

}  // namespace

std::vector<fs::path> expand(std::span<const std::string> patterns) {
  std::vector<fs::path> all;
  std::map<std::string, std::string> seen;  // path without detours -> the pattern that named it
  for (const std::string& pattern : patterns) {
    for (fs::path& path : expand_one(pattern)) {
      const auto [earlier, fresh] = seen.emplace(fs::weakly_canonical(path).string(), pattern);
      if (!fresh) {
        usage_error("{}: named twice, by '{}' and by '{}'", path.string(), earlier->second, pattern);
      }
      all.push_back(std::move(path));
    }
  }
  return all;
}

}  // namespace longlora::data
