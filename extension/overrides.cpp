// What tests in Python put in the place of the machine. See culm/testing/overrides.hpp.
#include "overrides.hpp"

#include <cstring>

#include "culm/testing/overrides.hpp"

namespace culm::extension {

namespace {

// Copies the path of a file. False: an exception is set.
bool copy_path(const char* path, char (&into)[PressureSources::kPathBytesMax]) {
    if (std::strlen(path) >= sizeof(into)) {
        PyErr_Format(PyExc_ValueError, "a path of memory pressure may have at most %zu bytes", sizeof(into) - 1);
        return false;
    }
    std::strcpy(into, path);
    return true;
}

}  // namespace

PyObject* override_pressure_sources(PyObject*, PyObject* arguments) {
    const char* group_directory = nullptr;
    const char* stall_file = nullptr;
    if (!PyArg_ParseTuple(arguments, "zz:override_pressure_sources", &group_directory, &stall_file)) return nullptr;
    PressureSources sources;
    if (group_directory != nullptr && !copy_path(group_directory, sources.group_directory)) return nullptr;
    if (stall_file != nullptr && !copy_path(stall_file, sources.stall_file)) return nullptr;
    const bool is_override = group_directory != nullptr || stall_file != nullptr;
    if (!culm::override_pressure_sources(is_override ? &sources : nullptr)) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject* override_overcommit_mode(PyObject*, PyObject* mode) {
    const long wanted = PyLong_AsLong(mode);
    if (wanted == -1 && PyErr_Occurred() != nullptr) return nullptr;
    if (wanted < 0 || wanted > 2) {
        PyErr_Format(PyExc_ValueError, "the overcommit mode is 0, 1 or 2, not %ld", wanted);
        return nullptr;
    }
    KernelFeatures features = culm::kernel_features();
    features.overcommit_mode = static_cast<int>(wanted);
    culm::override_kernel_features(features);
    Py_RETURN_NONE;
}

}  // namespace culm::extension
