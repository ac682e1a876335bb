// `longlora recipe` as it is called: output, exit codes, and that nothing is overwritten.
#include <catch2/catch.hpp>

#include "core/base/file.h"
#include "core/recipe/print.h"
#include "core/recipe/shipped.h"
#include "test/unit/process.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;

namespace {

test::Outcome longlora_recipe(const fs::path& folder, const std::string& arguments) {
  return test::run_in_shell("cd '" + folder.string() + "' && '" LONGLORA_BINARY "' recipe " + arguments);
}

}  // namespace

TEST_CASE("recipe ls, cp, show, check and schema", "[recipe][verb]") {
  const test::TemporaryFolder folder;
  const auto run = [&](const std::string& arguments) { return longlora_recipe(folder.path(), arguments); };

  const test::Outcome list = run("ls");
  CHECK(list.code == 0);
  for (const auto& one : recipe::shipped()) CHECK_THAT(list.text, Catch::Contains(one.name));

  CHECK(run("cp longlora-7b-8k").code == 0);
  const std::string copied = read_file(folder.path() / "longlora-7b-8k.json");
  CHECK(copied == recipe::find_shipped("longlora-7b-8k")->text);
  test::write_file(folder.path() / "mine.json", "{}");
  CHECK(run("cp longlora-7b-8k mine.json").code == 2);
  CHECK(read_file(folder.path() / "mine.json") == "{}");
  CHECK(run("cp longlora-7b-9k").code == 2);

  const test::Outcome check = run("check longlora-7b-8k.json");
  CHECK(check.code == 0);
  CHECK(check.text == "ok\n");
  const test::Outcome bad = run("check longlora-7b-8k optimizer.betsa=1 'data.train=[]'");
  CHECK(bad.code == 2);
  CHECK_THAT(
      bad.text,
      Catch::Contains("override 'optimizer.betsa=1': optimizer.betsa: unknown key, did you mean 'optimizer.betas'?"));
  CHECK(run("check longqlora-7b-8k").code == 2);  // 4 bits: shown, but not run yet
  CHECK(run("check nothing.json").code == 3);

  const test::Outcome show = run("show longqlora-7b-8k seed=7");
  CHECK(show.code == 0);
  test::write_file(folder.path() / "shown.json", show.text);
  CHECK(run("show shown.json").text == show.text);
  CHECK_THAT(show.text, Catch::Contains("\"seed\": 7"));

  CHECK(run("schema").text == recipe::schema());
  CHECK(run("schema --markdown").text == recipe::reference_page());
  CHECK(run("sho x").code == 2);
  CHECK(run("").code == 2);
}
