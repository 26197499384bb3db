// Plain dictionaries for the Python side to make typed objects of.
#include "diagnostics.hpp"

#include <cstdint>
#include <span>

#include "culm/context.hpp"
#include "culm/kernel.hpp"
#include "culm/stack_arena.hpp"
#include "culm/stack_pool.hpp"
#include "thread_host.hpp"

namespace culm::extension {

namespace {

struct Count {
    const char* name;
    std::uint64_t value;
};

PyObject* as_dict(std::span<const Count> counts) {
    PyObject* dict = PyDict_New();
    for (const Count& count : counts) {
        PyObject* value = dict == nullptr ? nullptr : PyLong_FromUnsignedLongLong(count.value);
        if (dict != nullptr && (value == nullptr || PyDict_SetItemString(dict, count.name, value) < 0)) Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

}  // namespace

PyObject* statistics(PyObject*, PyObject*) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    const runtime::SchedulerStatistics now = host->scheduler->statistics();
    PoolStatistics pool;
    std::size_t limit_bytes = 0;
    for (std::size_t i = 0; i < kStackClassCount; ++i) {
        const auto size_class = static_cast<StackClass>(i);
        const PoolStatistics shelf = host->scheduler->stack_pool().statistics(size_class);
        pool.stacks_free += shelf.stacks_free;
        pool.warm_bytes += shelf.warm_bytes;
        pool.stacks_returned += shelf.stacks_returned;
        limit_bytes += shelf.stacks_taken * stack_limit_bytes(size_class);
    }
    const Count counts[] = {{"switches", now.switches},
                            {"spawned", now.spawned},
                            {"finished", now.finished},
                            {"polls", now.polls},
                            {"idle_polls", now.idle_polls},
                            {"remote_calls", now.remote_calls},
                            {"fibers", now.fibers},
                            {"ready", now.ready},
                            {"timers", now.timers},
                            {"fd_waits", now.fd_waits},
                            {"pool_stacks", pool.stacks_free},
                            {"pool_warm_bytes", pool.warm_bytes},
                            {"pool_returned", pool.stacks_returned},
                            {"stack_limit_bytes", limit_bytes},
                            {"shrink_slices", now.shrink.slices},
                            {"shrink_visited", now.shrink.visited},
                            {"shrink_fibers", now.shrink.shrunk},
                            {"shrink_ranges", now.shrink.ranges},
                            {"shrink_refused", now.shrink.refused},
                            {"shrink_bytes", now.shrink.bytes},
                            {"shrink_cpu_ns", now.shrink.cpu_ns},
                            {"shrink_kept_bytes", now.shrink.kept_bytes},
                            {"pressure_events", now.shrink.pressure_events}};
    return as_dict(counts);
}

PyObject* trim(PyObject*, PyObject*) {
    ThreadHost* host = ensure_thread_host();
    return host == nullptr ? nullptr : PyLong_FromSize_t(host->scheduler->trim());
}

PyObject* kernel_features(PyObject*, PyObject*) {
    const KernelFeatures& kernel = culm::kernel_features();
    return Py_BuildValue("{s:n,s:s,s:O,s:O,s:O,s:i,s:n}", "page_bytes", static_cast<Py_ssize_t>(kernel.page_bytes),
                         "guard", kernel.guard == GuardKind::kMadvise ? "madvise" : "mprotect", "vectored_guard",
                         kernel.vectored_guard ? Py_True : Py_False, "vectored_discard",
                         kernel.vectored_discard ? Py_True : Py_False, "pagemap_scan",
                         kernel.pagemap_scan ? Py_True : Py_False, "overcommit_mode", kernel.overcommit_mode,
                         "mappings_max", static_cast<Py_ssize_t>(kernel.mappings_max));
}

PyObject* stack_classes(PyObject*, PyObject*) {
    static const char* const kNames[kStackClassCount] = {"64 KB", "256 KB", "1 MB", "10 MB", "100 MB", "1 GB"};
    PyObject* list = PyList_New(0);
    for (std::size_t i = 0; list != nullptr && i < kStackClassCount; ++i) {
        const auto size_class = static_cast<StackClass>(i);
        const ArenaStatistics arena = StackArena::of(size_class).statistics();
        PyObject* entry = Py_BuildValue(
            "{s:s,s:n,s:n,s:n,s:n,s:n,s:n}", "name", kNames[i], "limit_bytes",
            static_cast<Py_ssize_t>(stack_limit_bytes(size_class)), "stride_bytes",
            static_cast<Py_ssize_t>(arena.stride_bytes), "guard_bytes", static_cast<Py_ssize_t>(arena.guard_bytes),
            "reserved_bytes", static_cast<Py_ssize_t>(arena.reserved_bytes), "slots_carved",
            static_cast<Py_ssize_t>(arena.slots_carved), "slots_free", static_cast<Py_ssize_t>(arena.slots_free));
        if (entry == nullptr || PyList_Append(list, entry) < 0) Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

PyObject* context_implementation(PyObject*, PyObject*) { return PyUnicode_FromString(culm::context_implementation()); }

}  // namespace culm::extension
