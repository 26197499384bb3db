// Installs the runtime's interposition for the object that holds the interpreter.
//
// Once pthread_self() names the running fiber inside the interpreter, _PyRuntime.main_thread has to follow it on the
// main thread, or signal handlers would never run in a fiber: from then on the thread records point at the real slot.
#include "interposition.hpp"

#include "culm/runtime/interpose.hpp"
#include "embedder.hpp"
#include "errors.hpp"
#include "interpreter/os_error.hpp"
#include "thread_host.hpp"

namespace culm::extension {

bool interposed() noexcept { return runtime::interpose::installed(); }

void show_identities(ThreadHost& host) noexcept {
    interpreter::show_fiber_identities(host.record, host.scheduler->running().identity());
}

PyObject* interpose(PyObject*, PyObject*) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    auto installed = runtime::interpose::install({.interpreter_object = reinterpret_cast<const void*>(&Py_GetVersion)});
    if (!installed) return raise_error(installed.error());
    show_identities(*host);
    if (!interpreter::install_os_error_filter(raise_instead_of_os_error)) return nullptr;
    Py_RETURN_NONE;
}

PyObject* interposition_statistics(PyObject*, PyObject*) {
    const runtime::interpose::Statistics statistics = runtime::interpose::statistics();
    return Py_BuildValue("{s:n,s:n,s:k,s:k}", "objects", static_cast<Py_ssize_t>(statistics.objects), "slots",
                         static_cast<Py_ssize_t>(statistics.slots), "parks", statistics.parks, "direct",
                         statistics.direct);
}

}  // namespace culm::extension
