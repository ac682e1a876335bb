#include "core/eval/tasks/score.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

namespace longlora::eval {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

int64_t contained(std::string_view response, std::span<const std::string> expected) {
  const std::string text = lower(response);
  return std::count_if(expected.begin(), expected.end(),
                       [&](const std::string& one) { return text.find(lower(one)) != std::string::npos; });
}

// Runs of letters and digits, one space between and around them. Bytes beyond ASCII count as letters.
std::string bare_words(std::string_view text) {
  std::string out = " ";
  for (const char c : lower(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || byte >= 0x80) {
      out += c;
    } else if (c != '\'' && out.back() != ' ') {
      out += ' ';
    }
  }
  if (out.back() != ' ') out += ' ';
  return out;
}

std::set<std::string> words_of(std::string_view text) {
  std::istringstream in(lower(text));
  std::set<std::string> words;
  for (std::string word; in >> word;) words.insert(word);
  return words;
}

}  // namespace

double match_all(std::string_view response, std::span<const std::string> expected) {
  return static_cast<double>(contained(response, expected)) / static_cast<double>(expected.size());
}

double match_part(std::string_view response, std::span<const std::string> expected) {
  return contained(response, expected) > 0 ? 1 : 0;
}

double match_last_number(std::string_view response, std::string_view expected) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t end = response.size();
  while (end > 0 && !digit(response[end - 1])) --end;
  size_t begin = end;
  while (begin > 0 && digit(response[begin - 1])) --begin;
  while (begin + 1 < end && response[begin] == '0') ++begin;  // compared as numbers
  return begin < end && response.substr(begin, end - begin) == expected ? 1 : 0;
}

double match_topic(std::string_view response, std::string_view topic) {
  std::string wanted = bare_words(topic);
  for (const char* article : {" the ", " a ", " an "}) {
    if (wanted.starts_with(article) && wanted.size() > std::string_view(article).size()) {
      wanted.erase(0, std::string_view(article).size() - 1);
      break;
    }
  }
  return bare_words(response).find(wanted) != std::string::npos ? 1 : 0;
}

double match_words(std::string_view response, std::string_view answer) {
  const std::set<std::string> said = words_of(response), wanted = words_of(answer);
  const auto found = std::count_if(wanted.begin(), wanted.end(), [&](const auto& word) { return said.contains(word); });
  return wanted.empty() ? 0 : static_cast<double>(found) / static_cast<double>(wanted.size());
}

}  // namespace longlora::eval
