# Finds what the C++ tests and benchmarks are written with: doctest and google-benchmark.
#
# What is missing is left out instead of failing the build, and left-out.txt in the build folder says so; `make test`
# prints that file. Sets CULM_HAVE_DOCTEST and CULM_HAVE_BENCHMARK.
# Invariant: left-out.txt exists after every configuration, and is empty exactly when nothing was left out.

set(culm_left_out "")

if(CULM_BUILD_TESTS)
  # One header, the same for every CPU: a cross build uses it too.
  find_path(CULM_DOCTEST_DIR doctest/doctest.h NO_CMAKE_FIND_ROOT_PATH)
  if(CULM_DOCTEST_DIR)
    set(CULM_HAVE_DOCTEST ON)
  else()
    set(CULM_HAVE_DOCTEST OFF)
    string(APPEND culm_left_out "the C++ tests, because doctest was not found (Debian: apt-get install doctest-dev)\n")
  endif()
endif()

# What the C++ tests are compiled with in addition. Most of the time goes into doctest's checks: the optimiser does less
# about them, and an exception that leaves an expression is caught by the test case instead of by each check.
add_library(culm_test_flags INTERFACE)
target_compile_definitions(culm_test_flags INTERFACE DOCTEST_CONFIG_NO_TRY_CATCH_IN_ASSERTS)
target_compile_options(culm_test_flags INTERFACE -O1)

if(CULM_BUILD_BENCHMARKS)
  find_package(benchmark QUIET)
  if(TARGET benchmark::benchmark)
    set(CULM_HAVE_BENCHMARK ON)
  else()
    set(CULM_HAVE_BENCHMARK OFF)
    string(APPEND culm_left_out
      "the C++ benchmarks, because google-benchmark was not found (Debian: apt-get install libbenchmark-dev)\n")
  endif()
endif()

file(WRITE "${CMAKE_BINARY_DIR}/left-out.txt" "${culm_left_out}")
if(culm_left_out)
  message(WARNING "Left out: ${culm_left_out}")
endif()
