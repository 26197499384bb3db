// Fiber.stack and lowlevel.resident_pages(): how far a fiber's stack may grow, how much of it is in use, in memory, and
// was at its deepest.
#include <Python.h>
#include <structseq.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "culm/kernel.hpp"
#include "culm/residency.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"

namespace culm::extension {

namespace {

PyTypeObject StackUse_Type;

PyStructSequence_Field fields[] = {
    {"limit", "Bytes the stack may grow to."},
    {"used", "Bytes between its base and where it is now; 0 for a fiber that has no stack."},
    {"resident", "Bytes of it that are in memory."},
    {"peak",
     "Bytes between its base and the deepest page it ever touched, exact within a page. On a stack that an earlier "
     "fiber "
     "has used it may be that one's, until the first shrinking; configure(exact_peaks=True) rules that out."},
    {nullptr, nullptr}};

PyStructSequence_Desc description = {"culm.StackUse", "The stack of a fiber, in bytes.", fields, 4};

PyObject* stack_use(std::size_t limit, std::size_t used, std::size_t resident, std::size_t peak) {
    const std::size_t values[] = {limit, used, resident, peak};
    PyObject* result = PyStructSequence_New(&StackUse_Type);
    if (result == nullptr) return nullptr;
    for (Py_ssize_t i = 0; i < 4; ++i) {
        PyObject* number = PyLong_FromSize_t(values[i]);
        if (number == nullptr) {
            Py_DECREF(result);
            return nullptr;
        }
        PyStructSequence_SetItem(result, i, number);
    }
    return result;
}

std::size_t used_bytes(const PyFiber* self) {
    const auto* base = self->fiber->stack().base;
    const void* sp = suspended(self) ? self->fiber->suspended_sp() : __builtin_frame_address(0);
    return self->fiber->stack().contains(sp) ? static_cast<std::size_t>(base - static_cast<const std::byte*>(sp)) : 0;
}

// Runs of present pages, from the lowest address up; pieces of one run are joined.
struct PresentPages {
    const std::byte* base;
    std::vector<std::pair<const std::byte*, std::size_t>> runs;

    static void add(void* context, const std::byte* start, std::size_t bytes) {
        auto& runs = static_cast<PresentPages*>(context)->runs;
        if (!runs.empty() && runs.back().first + runs.back().second == start) {
            runs.back().second += bytes;
            return;
        }
        runs.emplace_back(start, bytes);
    }

    PyObject* as_list(std::size_t page_bytes) const {
        PyObject* list = PyList_New(static_cast<Py_ssize_t>(runs.size()));
        if (list == nullptr) return nullptr;
        Py_ssize_t place = 0;
        for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
            const auto below_base = static_cast<std::size_t>(base - (run->first + run->second)) / page_bytes;
            PyObject* pair = Py_BuildValue("(nn)", static_cast<Py_ssize_t>(below_base),
                                           static_cast<Py_ssize_t>(run->second / page_bytes));
            if (pair == nullptr) {
                Py_DECREF(list);
                return nullptr;
            }
            PyList_SET_ITEM(list, place++, pair);
        }
        return list;
    }
};

}  // namespace

PyObject* resident_pages(PyObject*, PyObject* object) {
    if (!is_fiber(object)) {
        PyErr_Format(PyExc_TypeError, "resident_pages() needs a Fiber, not %.100s", Py_TYPE(object)->tp_name);
        return nullptr;
    }
    const PyFiber* self = as_fiber(object);
    if (self->fiber == nullptr || !self->fiber->stack() || finished(self)) return PyList_New(0);
    PresentPages pages{self->fiber->stack().base, {}};
    auto seen = visit_present(self->fiber->stack(), &PresentPages::add, &pages);
    if (!seen) return raise_error(seen.error());
    return pages.as_list(culm::kernel_features().page_bytes);
}

bool ready_stack_use_type(PyObject* module) {
    if (PyStructSequence_InitType2(&StackUse_Type, &description) < 0) return false;
    return PyModule_AddObjectRef(module, "StackUse", reinterpret_cast<PyObject*>(&StackUse_Type)) == 0;
}

PyObject* fiber_stack(PyObject* object, void*) {
    PyFiber* self = as_fiber(object);
    if (self->fiber == nullptr) return stack_use(stack_limit_bytes(self->task->stack_class), 0, 0, 0);
    const bool has_stack = static_cast<bool>(self->fiber->stack()) && !finished(self);
    Residency residency;
    if (has_stack) {
        auto measured = stack_residency(self->fiber->stack());
        if (!measured) return raise_error(measured.error());
        residency = measured.value();
        self->fiber->note_peak(residency.depth_bytes);
    }
    const std::size_t limit = self->fiber->is_main() ? 0 : stack_limit_bytes(self->fiber->stack_class());
    return stack_use(limit, has_stack ? used_bytes(self) : 0, residency.resident_bytes, self->fiber->peak_bytes());
}

}  // namespace culm::extension
