// `longlora recipe`: shipped recipes, the resolved recipe, validation and the JSON schema.
#include "cmd/verb.h"

namespace longlora::cmd {

Verb recipe_verb() {
  return {"recipe",
          "list, copy, show, check recipes; print their schema",
          "ls|cp|show|check|schema ...",
          "",
          [](cxxopts::Options&) {},
          [](const cxxopts::ParseResult&) { return Exit::done; }};
}

}  // namespace longlora::cmd
