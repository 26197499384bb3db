# Fails if the library LIBRARY defines or wants a symbol of the Python C API, as listed by the program NM.
# Run by CTest; see layer_checks.cmake.

execute_process(COMMAND "${NM}" "${LIBRARY}" OUTPUT_VARIABLE symbols RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${NM} cannot read ${LIBRARY}")
endif()
if(NOT symbols MATCHES "culm")
  message(FATAL_ERROR "${LIBRARY} shows no symbol of culm: this check would prove nothing")
endif()
string(REGEX MATCHALL "[^\n]* _?Py[A-Z_][A-Za-z_0-9]*" found "${symbols}")
if(found)
  message(FATAL_ERROR "${LIBRARY} must not know Python, but has: ${found}")
endif()
