# The C++ libraries, from the system or from a local prefix filled by `scripts/setup` without root
# (.prefix/usr, or LONGLORA_PREFIX). Header-only or static where Debian has it so; sentencepiece is a shared
# library and is found through the program's run path.
set(LONGLORA_PREFIX ${CMAKE_SOURCE_DIR}/.prefix/usr CACHE PATH "Local prefix with the C++ libraries")
set(missing "")

function(need_header variable header package)
  find_path(${variable} ${header} HINTS ${LONGLORA_PREFIX}/include)
  if(NOT ${variable})
    set(missing "${missing} ${package}" PARENT_SCOPE)
  endif()
endfunction()
function(need_library variable names package)
  find_library(${variable} NAMES ${names} HINTS ${LONGLORA_PREFIX}/lib/${CMAKE_LIBRARY_ARCHITECTURE}
               ${LONGLORA_PREFIX}/lib)
  if(NOT ${variable})
    set(missing "${missing} ${package}" PARENT_SCOPE)
  endif()
endfunction()

need_header(JSON_INCLUDE nlohmann/json.hpp nlohmann-json3-dev)
need_header(CXXOPTS_INCLUDE cxxopts.hpp libcxxopts-dev)
need_header(SPDLOG_INCLUDE spdlog/spdlog.h libspdlog-dev)
need_header(FMT_INCLUDE fmt/format.h libfmt-dev)
find_path(CATCH3_INCLUDE catch2/catch_all.hpp HINTS ${LONGLORA_PREFIX}/include)
if(CATCH3_INCLUDE)
  need_library(CATCH3_MAIN libCatch2Main.a catch2)
  need_library(CATCH3_LIBRARY libCatch2.a catch2)
else()
  need_header(CATCH_INCLUDE catch2/catch.hpp catch2)
endif()
need_header(SENTENCEPIECE_INCLUDE sentencepiece_processor.h libsentencepiece-dev)
need_header(PCRE2_INCLUDE pcre2.h libpcre2-dev)
need_header(ZSTD_INCLUDE zstd.h libzstd-dev)
need_header(XXHASH_INCLUDE xxhash.h libxxhash-dev)
need_header(UTF8PROC_INCLUDE utf8proc.h libutf8proc-dev)
need_library(SENTENCEPIECE_LIBRARY sentencepiece libsentencepiece-dev)
need_library(PCRE2_LIBRARY libpcre2-8.a libpcre2-dev)
need_library(ZSTD_LIBRARY libzstd.a libzstd-dev)
need_library(UTF8PROC_LIBRARY libutf8proc.a libutf8proc-dev)
if(missing)
  message(FATAL_ERROR "These Debian packages are missing:${missing}. Run scripts/setup (with root it installs them; "
                      "without, it unpacks them into .prefix).")
endif()

get_filename_component(sentencepiece_folder ${SENTENCEPIECE_LIBRARY} DIRECTORY)
if(sentencepiece_folder MATCHES "^${LONGLORA_PREFIX}")
  add_run_path(${sentencepiece_folder})
endif()

find_package(Threads REQUIRED)
add_library(longlora_dependencies INTERFACE)
target_include_directories(longlora_dependencies SYSTEM INTERFACE ${JSON_INCLUDE} ${CXXOPTS_INCLUDE} ${SPDLOG_INCLUDE}
  ${FMT_INCLUDE} ${SENTENCEPIECE_INCLUDE} ${PCRE2_INCLUDE} ${ZSTD_INCLUDE} ${XXHASH_INCLUDE} ${UTF8PROC_INCLUDE})
target_compile_definitions(longlora_dependencies INTERFACE SPDLOG_FMT_EXTERNAL FMT_HEADER_ONLY XXH_INLINE_ALL
  PCRE2_CODE_UNIT_WIDTH=8 UTF8PROC_STATIC)
target_link_libraries(longlora_dependencies INTERFACE ${SENTENCEPIECE_LIBRARY} ${PCRE2_LIBRARY} ${ZSTD_LIBRARY}
  ${UTF8PROC_LIBRARY} Threads::Threads ${CMAKE_DL_LIBS})

# The tests are written for Catch2 v2 (Debian 12, Ubuntu 22.04). Where the system has v3, test/catch3 stands for v2's
# one header and the library brings main().
add_library(Catch2::Catch2 INTERFACE IMPORTED)
if(CATCH3_INCLUDE)
  target_include_directories(Catch2::Catch2 SYSTEM INTERFACE ${CMAKE_SOURCE_DIR}/test/catch3 ${CATCH3_INCLUDE})
  target_link_libraries(Catch2::Catch2 INTERFACE ${CATCH3_MAIN} ${CATCH3_LIBRARY})
else()
  target_include_directories(Catch2::Catch2 SYSTEM INTERFACE ${CATCH_INCLUDE})
endif()
