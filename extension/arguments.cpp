// Parses by hand what PyArg_ParseTupleAndKeywords cannot: options of ours mixed with keywords of the caller's function.
#include "arguments.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <string_view>

#include "errors.hpp"

namespace culm::extension {

bool parse_stack_limit(PyObject* value, StackClass& size_class) {
    size_class = kDefaultStackClass;
    if (value == nullptr || value == Py_None) return true;
    if (!PyLong_Check(value) || PyBool_Check(value)) {
        PyErr_Format(PyExc_TypeError, "stack_limit must be an int of bytes or None, not %.100s",
                     Py_TYPE(value)->tp_name);
        return false;
    }
    int overflow = 0;
    const long long bytes = PyLong_AsLongLongAndOverflow(value, &overflow);
    auto chosen =
        overflow != 0 || bytes <= 0 ? Result<StackClass>(Error{}) : stack_class_for(static_cast<std::size_t>(bytes));
    if (!chosen) {
        PyErr_Format(PyExc_ValueError,
                     "stack_limit must be from 1 to %zu bytes, got %R; it is rounded up to 64 KB, 256 KB, 1 MB, 10 MB, "
                     "100 MB or 1 GB",
                     stack_limit_bytes(StackClass::k1G), value);
        return false;
    }
    size_class = chosen.value();
    return true;
}

namespace {

// The strategies that only `culm lab` has, because a fiber cannot run on their stacks: for a better message. A test
// compares this list with that of the lab.
constexpr std::string_view kForLabOnly[] = {"bare-mmap",   "fault-thread", "growsdown",   "one-block",
                                            "userfaultfd", "copying",      "fixed-small", "split"};

// The name of a strategy that fibers can run on, or None for the default.
bool parse_strategy(PyObject* value, const StackStrategy*& strategy) {
    if (value == Py_None) return true;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "strategy must be a str or None, not %.100s", Py_TYPE(value)->tp_name);
        return false;
    }
    const char* id = PyUnicode_AsUTF8(value);
    if (id == nullptr) return false;
    const Result<StackStrategy*> found = stack_strategy(id);
    if (!found) {
        const bool is_labs = std::find(std::begin(kForLabOnly), std::end(kForLabOnly), id) != std::end(kForLabOnly);
        PyErr_Format(PyExc_ValueError,
                     is_labs
                         ? "the stack strategy %R cannot safely carry Python, it is for culm lab only: use one of %s"
                         : "unknown stack strategy %R: use one of %s",
                     value, stack_strategy_ids());
        return false;
    }
    if (const char* why_not = found.value()->why_unavailable()) {
        raise_error({ENOSYS, "use that stack strategy", why_not});
        return false;
    }
    strategy = found.value();
    return true;
}

bool take_option(PyObject* key, PyObject* value, SpawnArguments& parsed, bool& taken) {
    taken = true;
    if (PyUnicode_CompareWithASCIIString(key, "name") == 0) {
        if (value == Py_None) return true;
        if (!PyUnicode_Check(value)) {
            PyErr_Format(PyExc_TypeError, "name must be a str or None, not %.100s", Py_TYPE(value)->tp_name);
            return false;
        }
        parsed.name = value;
        return true;
    }
    if (PyUnicode_CompareWithASCIIString(key, "stack_limit") == 0) return parse_stack_limit(value, parsed.size_class);
    if (PyUnicode_CompareWithASCIIString(key, "strategy") == 0) return parse_strategy(value, parsed.strategy);
    taken = false;
    return true;
}

}  // namespace

bool parse_spawn_arguments(const char* caller, PyObject* const* args, Py_ssize_t count, PyObject* names,
                           SpawnArguments& parsed) {
    if (count < 1) {
        PyErr_Format(PyExc_TypeError, "%s() needs the function to run as its first argument", caller);
        return false;
    }
    parsed.function = args[0];
    if (!PyCallable_Check(parsed.function)) {
        PyErr_Format(PyExc_TypeError,
                     "%s() needs a callable as its first argument, not %.100s; pass the function and "
                     "its arguments separately",
                     caller, Py_TYPE(parsed.function)->tp_name);
        return false;
    }
    parsed.positional = args + 1;
    parsed.positional_count = count - 1;
    const Py_ssize_t keyword_count = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < keyword_count; ++i) {
        PyObject* key = PyTuple_GET_ITEM(names, i);
        PyObject* value = args[count + i];
        bool taken = false;
        bool good = take_option(key, value, parsed, taken);
        if (good && !taken) {
            if (parsed.keywords == nullptr) parsed.keywords = PyDict_New();
            good = parsed.keywords != nullptr && PyDict_SetItem(parsed.keywords, key, value) == 0;
        }
        if (!good) {
            Py_CLEAR(parsed.keywords);
            return false;
        }
    }
    return true;
}

bool parse_timeout_argument(const char* caller, PyObject* const* args, Py_ssize_t count, PyObject* names,
                            PyObject*& timeout) {
    timeout = count > 0 ? args[0] : nullptr;
    const Py_ssize_t keyword_count = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
    if (count + keyword_count > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most one argument: timeout", caller);
        return false;
    }
    if (keyword_count == 0) return true;
    PyObject* key = PyTuple_GET_ITEM(names, 0);
    if (PyUnicode_CompareWithASCIIString(key, "timeout") != 0) {
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R; it takes timeout", caller, key);
        return false;
    }
    timeout = args[count];
    return true;
}

}  // namespace culm::extension
