# shellcheck shell=bash
# What scripts/setup, scripts/build and the checks share: finding the tools that meet the project's minimum versions, and running
# what takes long. Nothing here installs anything. Each find_ function prints what it found, or nothing (and fails).

# Runs a command or a function and returns its status. SIGINT, SIGTERM, SIGHUP and SIGUSR1 go on to all that it started, as one
# process group; when that has ended, the script ends with 128 + the signal's number. By itself bash dies of a signal while it
# waits for a program, which runs on. Call it from the script itself: a subshell gets none of the signals.
run_child() { # COMMAND ...
  local child="" status stopped="" heard=1 name tries
  for name in HUP INT USR1 TERM; do
    # shellcheck disable=SC2064
    trap "heard=1 stopped=\${stopped:-$name}; kill -$name -- \${child:+-\$child} 2>/dev/null || :" "$name"
  done
  set -m # a process group of its own, and SIGINT is not ignored in it
  "$@" </dev/null &
  child=$!
  set +m
  [ -z "$stopped" ] || kill "-$stopped" -- "-$child" 2>/dev/null || : # it came before the child was known
  while [ "$heard" ]; do
    heard=
    status=0
    wait "$child" || status=$? # ends early when a signal is heard
  done
  trap - HUP INT USR1 TERM
  [ "$stopped" ] || return "$status"
  for ((tries = 0; tries < 100; ++tries)); do # what it started may still be ending
    kill -0 -- "-$child" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL -- "-$child" 2>/dev/null || :
  exit $((128 + $(kill -l "$stopped")))
}

version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# A C++20 compiler: $CXX if set, else the first of the usual names that is g++ >= 12 or clang >= 15.
find_compiler() {
  local compiler version least known=(c++ g++ g++-{15..12} clang++ clang++-{21..15})
  for compiler in ${CXX:-"${known[@]}"}; do
    command -v "$compiler" >/dev/null 2>&1 || continue
    least=12
    case "$("$compiler" --version 2>/dev/null)" in *clang*) least=15 ;; esac
    version=$("$compiler" -dumpversion 2>/dev/null) || continue
    if version_at_least "${version%%.*}" "$least"; then
      echo "$compiler"
      return
    fi
  done
  return 1
}

# CMake >= 3.25 and ninja: the system's, else the ones that scripts/setup put into .venv. Those are called where the
# package keeps its binary, because the launcher beside them breaks when the clone is moved.
find_cmake() {
  local cmake
  for cmake in "$(command -v cmake)" "$PWD"/.venv/lib/python3*/site-packages/cmake/data/bin/cmake; do
    if [ -x "$cmake" ] && version_at_least "$("$cmake" --version | awk '{ print $3; exit }')" 3.25; then
      echo "$cmake"
      return
    fi
  done
  return 1
}
find_ninja() {
  local ninja
  for ninja in "$(command -v ninja)" "$PWD/.venv/bin/ninja"; do
    if [ -x "$ninja" ]; then
      echo "$ninja"
      return
    fi
  done
  return 1
}

# Debian package, and the files of it that the build uses (under a prefix; @ stands for the machine's library folder).
readonly kLibraries="
nlohmann-json3-dev    include/nlohmann/json.hpp
libcxxopts-dev        include/cxxopts.hpp
libspdlog-dev         include/spdlog/spdlog.h
libfmt-dev            include/fmt/format.h
catch2                include/catch2/catch.hpp|include/catch2/catch_all.hpp
libsentencepiece-dev  include/sentencepiece_processor.h @/libsentencepiece.so
libpcre2-dev          include/pcre2.h @/libpcre2-8.a
libzstd-dev           include/zstd.h @/libzstd.a
libxxhash-dev         include/xxhash.h
libutf8proc-dev       include/utf8proc.h @/libutf8proc.a"
