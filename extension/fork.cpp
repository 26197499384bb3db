// What fork() means for fibers: the child has one OS thread, and on it one fiber, the one that forked. The others
// belong to the parent: they are neither run nor unwound in the child, as with threads.
//
// The runtime does it, within fork() itself; here is what Python has to note.
// Invariant: in the child every fiber of the parent but the forking one is lost() before any Python code runs.
#include "fork.hpp"

#include <unistd.h>

#include "culm/runtime/forking.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "interposition.hpp"

namespace culm::extension {

namespace {

void flush_stream(const char* name) {
    PyObject* stream = PySys_GetObject(name);
    if (stream == nullptr || stream == Py_None) return;
    PyObject* done = PyObject_CallMethod(stream, "flush", nullptr);
    if (done == nullptr) PyErr_Clear();
    Py_XDECREF(done);
}

// The exit status of SystemExit, as the interpreter itself would choose it.
int status_of_system_exit(PyObject* exception) {
    PyObject* code = PyObject_GetAttrString(exception, "code");
    int status = 1;
    if (code == Py_None)
        status = 0;
    else if (code != nullptr && PyLong_Check(code))
        status = static_cast<int>(PyLong_AsLong(code));
    else if (code != nullptr)
        PySys_FormatStderr("%S\n", code);
    Py_XDECREF(code);
    return status;
}

}  // namespace

PyObject* keep_fibers_after_fork(PyObject*, PyObject* keep) {
    const int truth = PyObject_IsTrue(keep);
    if (truth < 0) return nullptr;
    runtime::keep_fibers_after_fork(truth != 0);
    Py_RETURN_NONE;
}

void lose_in_fork(runtime::Fiber& fiber) {
    if (fiber.host != nullptr) host_of(fiber)->lost_in_fork = true;
}

void go_on_after_fork(runtime::Fiber& survivor) {
    if (thread_host == nullptr) return;
    const bool is_new_main = !survivor.is_main() && &thread_host->scheduler->main_fiber() == &survivor;
    thread_host->forking = is_new_main ? host_of(survivor) : nullptr;
}

PyObject* after_fork_in_child(PyObject*, PyObject*) {
    ThreadHost* host = thread_host;
    if (host == nullptr) Py_RETURN_NONE;
    interpreter::adopt_thread_after_fork(host->record);
    if (interposed()) show_identities(*host);
    Py_RETURN_NONE;
}

void end_forked_child(PyObject* result) {
    int status = 0;
    if (result == nullptr) {
        PyObject* exception = take_raised_instance();
        if (PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)) {
            status = status_of_system_exit(exception);
        } else {
            status = 1;
            raise_instance(exception);
            PyErr_Print();
        }
    }
    flush_stream("stdout");
    flush_stream("stderr");
    _exit(status);
}

bool register_fork_hooks(PyObject* module) {
    PyObject* hook = PyObject_GetAttrString(module, "_after_fork_in_child");
    PyObject* os = hook == nullptr ? nullptr : PyImport_ImportModule("os");
    PyObject* function = os == nullptr ? nullptr : PyObject_GetAttrString(os, "register_at_fork");
    PyObject* const arguments[] = {hook};
    PyObject* names = function == nullptr ? nullptr : Py_BuildValue("(s)", "after_in_child");
    PyObject* done = names == nullptr ? nullptr : PyObject_Vectorcall(function, arguments, 0, names);
    const bool good = done != nullptr;
    Py_XDECREF(done);
    Py_XDECREF(names);
    Py_XDECREF(function);
    Py_XDECREF(os);
    Py_XDECREF(hook);
    return good;
}

}  // namespace culm::extension
