# Fails if the library LIBRARY defines or needs a symbol of CPython.
execute_process(COMMAND ${NM} -A ${LIBRARY} OUTPUT_VARIABLE symbols RESULT_VARIABLE status ERROR_QUIET)
if(NOT status EQUAL 0 OR symbols STREQUAL "")
  message(FATAL_ERROR "${NM} ${LIBRARY} failed: ${status}")
endif()
string(REGEX MATCHALL "[^\n]* _?Py[A-Z_][^\n]*" found "${symbols}")
if(found)
  message(FATAL_ERROR "core uses CPython: ${found}")
endif()
