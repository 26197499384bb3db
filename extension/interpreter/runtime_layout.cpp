// Checks of the running interpreter's layout. See runtime_layout.hpp.
//
// The one thing that is searched for when it is not where it should be is _PyRuntime.main_thread: internal structs may
// change between patch releases, and a wheel is built once for a minor version.
#include "interpreter/runtime_layout.hpp"

#include <sys/syscall.h>
#include <unistd.h>

namespace culm::interpreter {

namespace {

unsigned long* main_thread_slot_ = nullptr;

// How far beyond its compiled offset the identity is searched for.
constexpr std::size_t kSearchBytes = 4096;

// The identity of the main thread, 0 with an exception set if it cannot be told.
unsigned long main_thread_identity() {
    if (getpid() == static_cast<pid_t>(syscall(SYS_gettid))) return PyThread_get_thread_ident();
    PyObject* threading = PyImport_ImportModule("threading");
    if (threading == nullptr) return 0;
    PyObject* main_thread = PyObject_CallMethod(threading, "main_thread", nullptr);
    Py_DECREF(threading);
    if (main_thread == nullptr) return 0;
    PyObject* ident = PyObject_GetAttrString(main_thread, "ident");
    Py_DECREF(main_thread);
    if (ident == nullptr) return 0;
    const unsigned long identity = PyLong_AsUnsignedLong(ident);
    Py_DECREF(ident);
    return identity;
}

// The only word of the runtime's first part that holds `identity`, or null.
unsigned long* search_main_thread_slot(unsigned long identity) {
    auto* const words = reinterpret_cast<unsigned long*>(&_PyRuntime);
    const std::size_t count = (offsetof(struct pyruntimestate, main_thread) + kSearchBytes) / sizeof(unsigned long);
    unsigned long* found = nullptr;
    for (std::size_t i = 0; i < count; ++i) {
        if (words[i] != identity) continue;
        if (found != nullptr) return nullptr;
        found = &words[i];
    }
    return found;
}

bool chunk_matches(PyThreadState* tstate) {
    const _PyStackChunk* chunk = tstate->datastack_chunk;
    if (chunk == nullptr) return tstate->datastack_top == nullptr;
    return reinterpret_cast<const char*>(chunk) + chunk->size == reinterpret_cast<const char*>(tstate->datastack_limit);
}

}  // namespace

bool check_version() {
    if ((Py_Version >> 16) == (PY_VERSION_HEX >> 16)) return true;
    PyErr_Format(PyExc_ImportError,
                 "culm was built for CPython %d.%d and cannot run in %s: install it for that version", PY_MAJOR_VERSION,
                 PY_MINOR_VERSION, Py_GetVersion());
    return false;
}

bool check_fields(std::initializer_list<FieldCheck> checks) {
    for (const FieldCheck& check : checks) {
        if (check.matches) continue;
        PyErr_Format(PyExc_ImportError,
                     "culm was built against CPython %s; in the running one (%s) %s is not where it was: "
                     "build culm from source for this interpreter",
                     PY_VERSION, Py_GetVersion(), check.field);
        return false;
    }
    return true;
}

bool check_thread_state(PyThreadState* tstate, int recursion_limit, PyFrameObject* innermost_frame) {
    PyObject* dict = PyThreadState_GetDict();  // made if there was none
    return check_fields({
        {"PyThreadState.interp", tstate->interp == PyInterpreterState_Get()},
        {"PyThreadState.thread_id", tstate->thread_id == PyThread_get_thread_ident()},
        {"PyThreadState.id", tstate->id == PyThreadState_GetID(tstate)},
        {"PyThreadState.dict", tstate->dict == dict},
        {"PyThreadState.recursion_limit", recursion_limit == Py_GetRecursionLimit()},
        {"PyThreadState.current_frame", innermost_frame == PyEval_GetFrame()},
        {"PyThreadState.datastack_chunk", chunk_matches(tstate)},
        {"PyThreadState.async_exc", tstate->async_exc == nullptr || PyExceptionClass_Check(tstate->async_exc)},
        {"PyThreadState.context", tstate->context == nullptr || PyContext_CheckExact(tstate->context)},
    });
}

bool find_main_thread_slot() {
    if (main_thread_slot_ != nullptr) return true;
    const unsigned long identity = main_thread_identity();
    if (identity == 0 && PyErr_Occurred() != nullptr) return false;
    main_thread_slot_ =
        _PyRuntime.main_thread == identity ? &_PyRuntime.main_thread : search_main_thread_slot(identity);
    return check_fields({{"_PyRuntime.main_thread", main_thread_slot_ != nullptr}});
}

unsigned long* main_thread_slot() noexcept { return main_thread_slot_; }

PyObject* python_signal_handler(int signal_number) {
    PyObject* module = PyImport_ImportModule("_signal");
    if (module == nullptr) return nullptr;
    PyObject* handler = PyObject_CallMethod(module, "getsignal", "i", signal_number);
    Py_DECREF(module);
    return handler;
}

}  // namespace culm::interpreter
