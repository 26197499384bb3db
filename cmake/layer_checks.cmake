# Two layer rules that only a compiler and a linker can check, as part of a build with tests:
# each public header compiles alone, and core and runtime hold no symbol of Python.
#
# Invariant: a header added under core/include or runtime/include is checked without being listed anywhere.

file(GLOB_RECURSE culm_public_headers CONFIGURE_DEPENDS
  RELATIVE "${PROJECT_SOURCE_DIR}"
  "${PROJECT_SOURCE_DIR}/core/include/*.hpp" "${PROJECT_SOURCE_DIR}/runtime/include/*.hpp")

# CMake writes this one.
list(APPEND culm_public_headers core/include/culm/config.hpp)

set(culm_header_units "")
foreach(header IN LISTS culm_public_headers)
  string(REGEX REPLACE "^(core|runtime)/include/" "" included "${header}")
  string(MAKE_C_IDENTIFIER "${included}" identifier)
  set(unit "${CMAKE_BINARY_DIR}/header_checks/${identifier}.cpp")
  file(CONFIGURE OUTPUT "${unit}" CONTENT "#include \"${included}\"\n#include \"${included}\"\n" @ONLY)
  list(APPEND culm_header_units "${unit}")
endforeach()

add_library(culm_header_checks OBJECT ${culm_header_units})
target_link_libraries(culm_header_checks PRIVATE culm_build_flags culm_core culm_runtime)

find_program(CULM_NM NAMES ${CMAKE_NM} nm)
foreach(library culm_core culm_runtime)
  add_test(NAME layout.${library}_has_no_python_symbol
    COMMAND ${CMAKE_COMMAND} -DNM=${CULM_NM} -DLIBRARY=$<TARGET_FILE:${library}>
            -P ${PROJECT_SOURCE_DIR}/cmake/no_python_symbol.cmake)
endforeach()
