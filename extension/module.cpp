// The module culm._culm: its functions, its types, and what happens when it is imported.
#include <Python.h>

#include "diagnostics.hpp"
#include "embedder.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "fork.hpp"
#include "interposition.hpp"
#include "lowlevel.hpp"
#include "overflow.hpp"
#include "overrides.hpp"
#include "scheduling.hpp"
#include "settings.hpp"
#include "stack_sites.hpp"
#include "thread_host.hpp"
#include "undertaker.hpp"

namespace culm::extension {

namespace {

template <class Function>
PyCFunction as_method(Function* function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef functions[] = {
    {"spawn", as_method(spawn), METH_FASTCALL | METH_KEYWORDS,
     "spawn(fn, *args, name=None, stack_limit=None, strategy=None, **kwargs)\n--\n\n"
     "Starts fn(*args, **kwargs) on a new fiber of this thread and returns the Fiber. Does not park.\n\n"
     "stack_limit: bytes its stack may grow to (rounded up to a size class; None: 10 MB).\n"
     "strategy: how the stack is allocated: 'arena' (the default), 'mmap', 'fault-handler' (a system call may fail "
     "with "
     "EFAULT where it writes into stack that nothing has touched), or 'malloc' (without a guard). None: 'arena', or "
     "'fault-handler' under strict overcommit, which is said once by a RuntimeWarning.\n"
     "Raises TypeError, ValueError, and OSError when address space or mappings run out."},
    {"sleep", sleep_for, METH_O,
     "sleep($module, seconds, /)\n--\n\nParks for that many seconds; 0 lets the other runnable fibers go first.\n\n"
     "Raises TypeError, ValueError for a negative number or NaN, Cancelled."},
    {"yield_now", yield_now, METH_NOARGS,
     "yield_now($module, /)\n--\n\nLets every runnable fiber run once. Returns at once if there is none. Raises "
     "Cancelled."},
    {"current", current, METH_NOARGS,
     "current($module, /)\n--\n\nThe running Fiber; the main fiber outside all others. Does not park."},
    {"fibers", fibers, METH_NOARGS,
     "fibers($module, /)\n--\n\nA list of this thread's started, unfinished fibers without its main fiber. Does not "
     "park."},
    {"park", as_method(park), METH_FASTCALL | METH_KEYWORDS,
     "park($module, /, timeout=None)\n--\n\nSuspends the running fiber until unpark() or switch(); returns the value "
     "sent.\n\nReturns at once if unpark() came first. Raises TimeoutError after timeout seconds, Cancelled."},
    {"unpark", as_method(unpark), METH_FASTCALL,
     "unpark($module, fiber, value=None, /)\n--\n\nMakes a fiber suspended in park() or switch() runnable and sends it "
     "the value.\n\nIf it is not suspended, its next park() returns at once. From any OS thread. Does not park.\n"
     "Raises RuntimeError if it has not started, has finished, or has a value on its way."},
    {"switch", as_method(switch_to), METH_FASTCALL,
     "switch($module, fiber, value=None, /)\n--\n\nContinues that fiber at once, past the run queue. The caller stays "
     "suspended until somebody\nswitches to it or unparks it; returns the value sent then.\n\n"
     "The fiber must not have started, or be suspended in park() or switch(), on this OS thread: else RuntimeError."},
    {"wait_readable", as_method(wait_readable), METH_FASTCALL | METH_KEYWORDS,
     "wait_readable($module, fd, /, timeout=None)\n--\n\nParks until the descriptor (or object with fileno()) can be "
     "read.\n\nRaises OSError for a bad descriptor or one closed meanwhile, TimeoutError, Cancelled."},
    {"wait_writable", as_method(wait_writable), METH_FASTCALL | METH_KEYWORDS,
     "wait_writable($module, fd, /, timeout=None)\n--\n\nParks until the descriptor (or object with fileno()) can be "
     "written.\n\nRaises OSError for a bad descriptor or one closed meanwhile, TimeoutError, Cancelled."},
    {"resident_pages", resident_pages, METH_O,
     "resident_pages($module, fiber, /)\n--\n\nWhich pages of a fiber's stack are in memory: a list of runs (offset, "
     "count), nearest to the base first.\n\noffset: pages between the base and the run; 0 is the page at the base. "
     "Empty without a stack.\nRaises TypeError, OSError where the kernel does not say. Does not park."},
    {"keep_fibers_after_fork", keep_fibers_after_fork, METH_O,
     "keep_fibers_after_fork($module, keep, /)\n--\n\nWhether fork() lets all fibers of the forking thread go on in "
     "the "
     "child, instead of only the\none that forks (the default). Does not park."},
    {"interpose", interpose, METH_NOARGS,
     "interpose($module, /)\n--\n\nPatches libc's blocking calls in every loaded object. Idempotent. OSError on "
     "failure."},
    {"interposition_statistics", interposition_statistics, METH_NOARGS, "Counters of the interposition, as a dict."},
    {"statistics", statistics, METH_NOARGS, "Counters of this thread's scheduler, as a dict."},
    {"trim", trim, METH_NOARGS,
     "trim($module, /)\n--\n\nGives the memory back that this thread's parked fibers and pooled stacks do not need, "
     "at once;\nreturns how many fibers gave something back. Does not park.\n\n"
     "Seldom needed: it happens by itself, see configure()."},
    {"stack_sites", stack_sites, METH_NOARGS,
     "Measures all stacks of this thread. A list of (code object or type, live fibers, bytes of their limits, resident "
     "bytes, fibers whose peak is known, largest peak, sum of peaks)."},
    {"shrink_settings", shrink_settings, METH_NOARGS,
     "The settings: (nanoseconds or -1, budget, pool budget, react to pressure, exact peaks)."},
    {"set_shrink_settings", set_shrink_settings, METH_VARARGS, "Replaces them: the same five values."},
    {"overflow_ends_fibers", get_overflow_ends_fibers, METH_NOARGS,
     "Whether a fiber that runs out of stack in C code is ended alone where possible."},
    {"set_overflow_ends_fibers", set_overflow_ends_fibers, METH_O, "Switches it on or off."},
    {"remove_fault_handler", remove_fault_handler, METH_NOARGS,
     "Takes the handler of overflows away; False where it is not there, or another one is installed over it."},
    {"install_fault_handler", install_fault_handler, METH_NOARGS, "Installs it, over whatever is there."},
    {"pressure_sources", pressure_sources, METH_NOARGS,
     "Where memory pressure is read: the control group's directory and the file of stalls; empty where there is none."},
    {"override_pressure_sources", override_pressure_sources, METH_VARARGS,
     "For tests: read these two paths instead; None and None for those of the machine."},
    {"override_overcommit_mode", override_overcommit_mode, METH_O,
     "override_overcommit_mode($module, mode, /)\n--\n\nFor tests: behave as under that vm.overcommit_memory. Must "
     "precede the first fiber."},
    {"kernel_features", kernel_features, METH_NOARGS, "What the kernel offers for stacks, as a dict."},
    {"stack_classes", stack_classes, METH_NOARGS, "The size classes of stacks, as a list of dicts."},
    {"context_implementation", context_implementation, METH_NOARGS, "Which switch this build uses."},
    {"know_dummy_threads", as_method(know_dummy_threads), METH_FASTCALL,
     "know_dummy_threads($module, active, dummy_type, /)\n--\n\nHas the dummy thread of a fiber leave the dict "
     "`active` "
     "when the fiber ends."},
    {"leave_at_exit", leave_at_exit, METH_O,
     "leave_at_exit($module, fiber, /)\n--\n\nHas the interpreter's exit stop that fiber as it would a daemon thread: "
     "without unwinding it."},
    {"_after_fork_in_child", after_fork_in_child, METH_NOARGS, "For os.register_at_fork."},
    {"_shut_down", shut_down, METH_NOARGS, "For atexit: unwinds every suspended fiber of this thread."},
    {nullptr, nullptr, 0, nullptr}};

// The fibers of the main thread are unwound when the interpreter exits.
bool register_shut_down(PyObject* module) {
    PyObject* function = PyObject_GetAttrString(module, "_shut_down");
    PyObject* atexit = function == nullptr ? nullptr : PyImport_ImportModule("atexit");
    PyObject* done = atexit == nullptr ? nullptr : PyObject_CallMethod(atexit, "register", "O", function);
    const bool good = done != nullptr;
    Py_XDECREF(done);
    Py_XDECREF(atexit);
    Py_XDECREF(function);
    return good;
}

int execute(PyObject* module) {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError,
                        "culm cannot be imported in a sub-interpreter: its fibers belong to the main interpreter");
        return -1;
    }
    if (!interpreter::initialize()) return -1;
    if (!add_exceptions(module) || !add_stack_overflow(module)) return -1;
    if (!ready_fiber_type(module) || !ready_stack_use_type(module)) return -1;
    install_embedder();
    return register_fork_hooks(module) && register_shut_down(module) ? 0 : -1;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(execute)}, {0, nullptr}};

PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                          .m_name = "culm._culm",
                          .m_doc = "The extension module of culm. Import culm instead.",
                          .m_size = 0,
                          .m_methods = functions,
                          .m_slots = slots,
                          .m_traverse = nullptr,
                          .m_clear = nullptr,
                          .m_free = nullptr};

}  // namespace

}  // namespace culm::extension

PyMODINIT_FUNC PyInit__culm() { return PyModuleDef_Init(&culm::extension::definition); }
