# Runs SUBJECT under GDB and checks that a backtrace from inside a fiber shows its frames, ends at the entry and
# complains about nothing: when stopped in the fiber, and at every instruction of the switch.
if(NOT GDB)
  message(STATUS "skipped: gdb was not found")
  return()
endif()

set(script ${CMAKE_CURRENT_BINARY_DIR}/backtrace_steps.gdb)
file(WRITE ${script} [[
set pagination off
set confirm off
break fiber_stops_here
run
echo \n--- in the fiber\n
backtrace
break culm_context_switch
continue
echo \n--- in the switch\n
set $i = 0
while $i < 24
  backtrace
  stepi
  set $i = $i + 1
end
echo \n--- done\n
]])
execute_process(COMMAND ${CMAKE_COMMAND} -E env DEBUGINFOD_URLS= LC_ALL=C ${GDB} -nx -batch -x ${script} ${SUBJECT}
  OUTPUT_VARIABLE output ERROR_VARIABLE errors TIMEOUT 120)
if("${output}${errors}" MATCHES "ptrace: Operation not permitted|Could not trace the inferior")
  message(STATUS "skipped: this machine does not let gdb trace")
  return()
endif()
if(NOT output MATCHES "--- in the fiber\n#0 +[^\n]*fiber_stops_here[^\n]*\n#1 [^\n]*fiber_inner[^\n]*\n#2 [^\n]*fiber_entry")
  message(FATAL_ERROR "the frames of the fiber are missing:\n${output}\n${errors}")
endif()
if(NOT output MATCHES "--- in the switch(.*)--- done")
  message(FATAL_ERROR "gdb did not get through the switch:\n${output}\n${errors}")
endif()
if("${output}${errors}" MATCHES "corrupt stack|Backtrace stopped|previous frame")
  message(FATAL_ERROR "gdb lost its way:\n${output}\n${errors}")
endif()
if(output MATCHES "--- in the fiber(.*)--- in the switch" AND CMAKE_MATCH_1 MATCHES " main ")
  message(FATAL_ERROR "the fiber's backtrace ran on into its thread:\n${output}")
endif()
