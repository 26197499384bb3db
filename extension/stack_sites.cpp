// The table of spawn sites, and the measuring of all live stacks on request.
//
// A site is known by its code object, so that each new closure of one function counts as the same; a callable without
// one by its type. Keys are held for ever, which is why their number is bounded: what exceeds it is left out.
// Invariant: nothing here runs Python code.
#include "stack_sites.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "culm/residency.hpp"
#include "errors.hpp"

namespace culm::extension {

namespace {

constexpr std::size_t kSitesMax = 4096;

struct Site {
    std::size_t fibers = 0;  // live, with a stack
    std::size_t limit_bytes = 0;
    std::size_t resident_bytes = 0;
    std::size_t peaks = 0;  // fibers whose peak is known, live ones included
    std::size_t peak_bytes_max = 0;
    std::size_t peak_bytes_sum = 0;

    void add_peak(std::size_t bytes) noexcept {
        ++peaks;
        peak_bytes_max = std::max(peak_bytes_max, bytes);
        peak_bytes_sum += bytes;
    }
};

using Sites = std::unordered_map<PyObject*, Site>;  // the keys are strong

// Of fibers that have ended.
Sites& ended() {
    static auto* sites = new Sites;  // outlives static destruction: fibers may end late
    return *sites;
}

// What a callable's fibers are counted under. New reference; null when memory is short, without an exception.
PyObject* site_of(PyObject* function) {
    PyObject* callable = Py_NewRef(function);
    // A partial of a method of a partial: nobody nests these deeper.
    for (int depth = 0; depth < 8; ++depth) {
        PyObject* inner = nullptr;
        if (PyFunction_Check(callable)) {
            inner = Py_NewRef(PyFunction_GET_CODE(callable));
            Py_DECREF(callable);
            return inner;
        }
        if (PyMethod_Check(callable)) {
            inner = Py_NewRef(PyMethod_GET_FUNCTION(callable));
        } else if (std::strcmp(Py_TYPE(callable)->tp_name, "functools.partial") == 0) {
            inner = PyObject_GetAttrString(callable, "func");
        }
        if (inner == nullptr) break;
        Py_SETREF(callable, inner);
    }
    PyErr_Clear();
    PyObject* type =
        PyCFunction_Check(callable) ? Py_NewRef(callable) : Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(callable)));
    Py_DECREF(callable);
    return type;
}

// The entry for a key (stolen); null when the table is full.
Site* entry_of(Sites& sites, PyObject* key) {
    auto found = sites.find(key);
    if (found == sites.end()) {
        if (sites.size() >= kSitesMax) {
            Py_DECREF(key);
            return nullptr;
        }
        return &sites.emplace(key, Site{}).first->second;
    }
    Py_DECREF(key);
    return &found->second;
}

void collect_live(runtime::Fiber& fiber, void* context) {
    if (fiber.host == nullptr || !fiber.stack() || host_of(fiber)->function == nullptr) return;
    static_cast<std::vector<runtime::Fiber*>*>(context)->push_back(&fiber);
}

// Measures all live stacks of the thread and adds them to `sites`. False: an exception is set.
bool add_live(ThreadHost& host, Sites& sites) {
    std::vector<runtime::Fiber*> fibers;
    host.scheduler->for_each_fiber(collect_live, &fibers);
    std::sort(fibers.begin(), fibers.end(), [](const runtime::Fiber* one, const runtime::Fiber* other) {
        return one->stack().base < other->stack().base;
    });
    std::vector<SuspendedStack> stacks;
    stacks.reserve(fibers.size());
    for (const runtime::Fiber* fiber : fibers) stacks.push_back({fiber->stack(), nullptr, 0});
    std::vector<SuspendedUse> uses(stacks.size());
    if (auto measured = measure_suspended(stacks, uses); !measured) {
        raise_error(measured.error());
        return false;
    }
    for (std::size_t i = 0; i < fibers.size(); ++i) {
        runtime::Fiber& fiber = *fibers[i];
        fiber.note_peak(uses[i].residency.depth_bytes);
        Site* site = entry_of(sites, site_of(host_of(fiber)->function));
        if (site == nullptr) continue;
        ++site->fibers;
        site->limit_bytes += stack_limit_bytes(fiber.stack_class());
        site->resident_bytes += uses[i].residency.resident_bytes;
        site->add_peak(fiber.peak_bytes());
    }
    return true;
}

PyObject* as_tuple(PyObject* key, const Site& site) {
    const auto number = [](std::size_t value) { return static_cast<Py_ssize_t>(value); };
    return Py_BuildValue("(Onnnnnn)", key, number(site.fibers), number(site.limit_bytes), number(site.resident_bytes),
                         number(site.peaks), number(site.peak_bytes_max), number(site.peak_bytes_sum));
}

}  // namespace

void note_stack_at_end(ThreadHost& host, PyFiber* self) {
    runtime::Fiber& fiber = *self->fiber;
    if (host.scheduler->exact_peaks()) {
        if (const auto residency = stack_residency(fiber.stack())) fiber.note_peak(residency.value().depth_bytes);
    }
    if (fiber.peak_bytes() == 0) return;  // nobody has ever looked
    if (Site* site = entry_of(ended(), site_of(self->function))) site->add_peak(fiber.peak_bytes());
}

PyObject* stack_sites(PyObject*, PyObject*) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    Sites sites = ended();
    for (auto& [key, site] : sites) Py_INCREF(key);
    PyObject* list = add_live(*host, sites) ? PyList_New(0) : nullptr;
    for (auto& [key, site] : sites) {
        PyObject* tuple = list == nullptr ? nullptr : as_tuple(key, site);
        if (list != nullptr && (tuple == nullptr || PyList_Append(list, tuple) < 0)) Py_CLEAR(list);
        Py_XDECREF(tuple);
    }
    for (auto& [key, site] : sites) Py_DECREF(key);
    return list;
}

}  // namespace culm::extension
