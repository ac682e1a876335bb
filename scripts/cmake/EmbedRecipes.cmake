# Writes recipes/*.json as C++ into the build folder: ${shipped_recipes} defines recipe::shipped()
# (core/recipe/shipped.h). A changed or new recipe configures again; the file is rewritten only when it differs.
file(GLOB recipe_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/recipes/*.json)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${recipe_files})
set(entries "")
foreach(recipe_file ${recipe_files})
  cmake_path(GET recipe_file STEM recipe_name)
  file(READ ${recipe_file} recipe_text)
  string(APPEND entries "    {\"${recipe_name}\", R\"recipe(${recipe_text})recipe\"},\n")
endforeach()
set(shipped_recipes ${CMAKE_BINARY_DIR}/shipped_recipes.cpp)
file(GENERATE OUTPUT ${shipped_recipes} CONTENT "// Written by EmbedRecipes.cmake from recipes/*.json.
#include \"core/recipe/shipped.h\"

namespace longlora::recipe {

std::span<const Shipped> shipped() {
  static const Shipped all[] = {
${entries}  };
  return all;
}

}  // namespace longlora::recipe
")
