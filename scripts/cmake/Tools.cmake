# Build speed: ccache in front of the compiler and mold as the linker, where they are installed. Run paths.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # The precompiled headers need these settings to hit the cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE_PROGRAM})
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM AND NOT CMAKE_CROSSCOMPILING)  # a cross compiler looks among its own tools
  add_link_options(-fuse-ld=mold)
endif()

# A folder where the program looks for shared libraries when it starts, before LD_LIBRARY_PATH, where a login shell may
# have put another LibTorch. Inside the clone the path is relative to the program, so that a clone that is moved runs.
add_link_options(-Wl,--disable-new-dtags)
macro(add_run_path folder)
  set(run_path ${folder})
  cmake_path(IS_PREFIX CMAKE_SOURCE_DIR "${run_path}" run_path_is_ours)
  if(run_path_is_ours)
    file(RELATIVE_PATH run_path ${CMAKE_BINARY_DIR} ${run_path})
    set(run_path "$ORIGIN/${run_path}")
  endif()
  list(APPEND CMAKE_BUILD_RPATH ${run_path})
endmacro()
