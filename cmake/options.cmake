# Compiler flags that every target of ours shares, as the interface target gantry_options.
option(GANTRY_TESTS "build unit tests" ON)
set(GANTRY_SANITIZE "" CACHE STRING "value for -fsanitize=, for example address,undefined or thread")
option(GANTRY_FUZZ "build the fuzz targets (clang)" OFF)

add_library(gantry_options INTERFACE)
target_compile_options(gantry_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror -fno-omit-frame-pointer
                                                -fstack-protector-strong)
target_compile_definitions(
  gantry_options
  INTERFACE _GNU_SOURCE
            _GLIBCXX_ASSERTIONS
            BOOST_ASIO_SEPARATE_COMPILATION
            BOOST_ASIO_NO_DEPRECATED
            BOOST_BEAST_SEPARATE_COMPILATION
            GANTRY_VERSION="${PROJECT_VERSION}")
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_definitions(gantry_options INTERFACE _FORTIFY_SOURCE=2)
  target_link_options(gantry_options INTERFACE -Wl,-z,relro,-z,now)
endif()
if(GANTRY_SANITIZE)
  target_compile_options(gantry_options INTERFACE -fsanitize=${GANTRY_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(gantry_options INTERFACE -fsanitize=${GANTRY_SANITIZE})
endif()
if(GANTRY_FUZZ)
  target_compile_options(gantry_options INTERFACE -fsanitize=fuzzer-no-link)
  add_custom_target(fuzzers)
endif()
# What nobody calls is left out, equal functions are kept once, relocations are packed: the daemon's resident memory is
# mostly its own program.
target_link_options(gantry_options INTERFACE -fuse-ld=lld-19 -Wl,--gc-sections,--icf=safe -Wl,-z,pack-relative-relocs)

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
