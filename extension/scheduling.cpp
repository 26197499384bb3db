// The everyday functions of the module. Each makes the thread's scheduler if there is none yet.
#include "scheduling.hpp"

#include <algorithm>
#include <vector>

#include "arguments.hpp"
#include "culm/runtime/undertaker.hpp"
#include "deadline.hpp"
#include "fiber_type.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::kNever;
using runtime::Wake;

PyObject* spawn(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    if (runtime::Undertaker::is_wanted() && !runtime::Undertaker::keep_ready(*host->scheduler)) [[unlikely]]
        return nullptr;
    SpawnArguments parsed;
    if (!parse_spawn_arguments("spawn", args, count, names, parsed)) return nullptr;
    PyFiber* self = spawn_fiber(*host, parsed);
    Py_XDECREF(parsed.keywords);
    return as_object(self);
}

PyObject* sleep_for(PyObject*, PyObject* seconds) {
    ThreadHost* host = ensure_thread_host();
    std::int64_t duration_ns = 0;
    if (host == nullptr || !duration_from_seconds(seconds, "seconds", duration_ns)) return nullptr;
    const std::int64_t deadline_ns = runtime::deadline_after(host->scheduler->clock().now_ns(), duration_ns);
    bool again = true;
    while (again) {
        const Wake wake = host->scheduler->sleep_until(deadline_ns);
        if (!settle_wake(*host, wake, again)) return nullptr;
    }
    Py_RETURN_NONE;
}

PyObject* yield_now(PyObject*, PyObject*) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    PyFiber* self = running_fiber(*host);
    host->scheduler->yield_now();
    const bool cancelled = self->exception != nullptr || self->fiber->cancel_requested();
    if (!cancelled) Py_RETURN_NONE;
    // A yield is a place where cancellation arrives; an already expired sleep takes the request.
    bool again = false;
    if (!settle_wake(*host, host->scheduler->sleep_until(0), again)) return nullptr;
    Py_RETURN_NONE;
}

PyObject* current(PyObject*, PyObject*) {
    ThreadHost* host = ensure_thread_host();
    return host == nullptr ? nullptr : Py_NewRef(as_object(running_fiber(*host)));
}

namespace {

void append_fiber(Fiber& fiber, void* context) {
    if (fiber.host != nullptr) static_cast<std::vector<Fiber*>*>(context)->push_back(&fiber);
}

}  // namespace

PyObject* fibers(PyObject*, PyObject*) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    PyObject* list = PyList_New(0);  // first: a collection now may end fibers, appending cannot start one
    if (list == nullptr) return nullptr;
    std::vector<Fiber*> found;
    host->scheduler->for_each_fiber(append_fiber, &found);
    // In the order of their making, whatever lists the runtime has them in.
    const auto is_older = [](const Fiber* one, const Fiber* other) { return one->id() < other->id(); };
    if (!std::is_sorted(found.begin(), found.end(), is_older)) std::sort(found.begin(), found.end(), is_older);
    for (Fiber* fiber : found) {
        if (PyList_Append(list, as_object(host_of(*fiber))) == 0) continue;
        Py_DECREF(list);
        return nullptr;
    }
    return list;
}

}  // namespace culm::extension
