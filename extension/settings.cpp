// Passes the settings of shrinking on, and says where memory pressure is read.
#include "settings.hpp"

#include "culm/memory_pressure.hpp"
#include "culm/runtime/shrink.hpp"

namespace culm::extension {

using runtime::kNever;
using runtime::ShrinkSettings;

PyObject* shrink_settings(PyObject*, PyObject*) {
    const ShrinkSettings now = runtime::shrink_settings();
    return Py_BuildValue("(LnnOO)", static_cast<long long>(now.after_ns == kNever ? -1 : now.after_ns),
                         static_cast<Py_ssize_t>(now.budget_bytes), static_cast<Py_ssize_t>(now.pool_budget_bytes),
                         now.react_to_pressure ? Py_True : Py_False, now.exact_peaks ? Py_True : Py_False);
}

PyObject* set_shrink_settings(PyObject*, PyObject* arguments) {
    long long after_ns = 0;
    Py_ssize_t budget_bytes = 0;
    Py_ssize_t pool_budget_bytes = 0;
    int react_to_pressure = 0;
    int exact_peaks = 0;
    if (!PyArg_ParseTuple(arguments, "Lnnpp:set_shrink_settings", &after_ns, &budget_bytes, &pool_budget_bytes,
                          &react_to_pressure, &exact_peaks)) {
        return nullptr;
    }
    if (budget_bytes < 0 || pool_budget_bytes < 0) {
        PyErr_SetString(PyExc_ValueError, "a budget of bytes must not be negative");
        return nullptr;
    }
    ShrinkSettings wanted;
    wanted.after_ns = after_ns < 0 ? kNever : after_ns;
    wanted.budget_bytes = static_cast<std::size_t>(budget_bytes);
    wanted.pool_budget_bytes = static_cast<std::size_t>(pool_budget_bytes);
    wanted.react_to_pressure = react_to_pressure != 0;
    wanted.exact_peaks = exact_peaks != 0;
    runtime::set_shrink_settings(wanted);
    Py_RETURN_NONE;
}

PyObject* pressure_sources(PyObject*, PyObject*) {
    const PressureSources& sources = culm::pressure_sources();
    return Py_BuildValue("{s:s,s:s}", "group_directory", sources.group_directory, "stall_file", sources.stall_file);
}
}  // namespace culm::extension
