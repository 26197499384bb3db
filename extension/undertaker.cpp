// Ending fibers that have run out of stack. See undertaker.hpp.
//
// Invariant: hand_to_undertaker makes no object and runs no Python: it is called where little stack is left.
#include "undertaker.hpp"

#include "culm/overflow.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "overflow.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::FiberState;

namespace {

bool is_wanted = false;
void bury(ThreadHost& host, PyFiber* self) {
    if (finished(self)) return;  // the whole thread has been given up meanwhile
    give_up_fiber(host, self, make_stack_overflow(self));
}

PyObject* bury_all(PyObject*, PyObject*) {
    ThreadHost& host = *thread_host;
    while (!host.out_of_stack.empty()) {
        PyFiber* self = host.out_of_stack.back();
        host.out_of_stack.pop_back();
        bury(host, self);
        Py_DECREF(as_object(self));
    }
    Py_CLEAR(host.undertaker);
    if (host.closing || ensure_undertaker(host)) Py_RETURN_NONE;
    return nullptr;
}

PyMethodDef bury_all_method = {"end_fibers_out_of_stack", bury_all, METH_NOARGS,
                               "Ends the fibers of this thread that have run out of stack in C code."};

}  // namespace

bool overflow_ends_fibers() noexcept { return is_wanted; }

PyObject* get_overflow_ends_fibers(PyObject*, PyObject*) { return PyBool_FromLong(is_wanted); }

PyObject* set_overflow_ends_fibers(PyObject*, PyObject* truth) {
    const int wanted = PyObject_IsTrue(truth);
    if (wanted < 0) return nullptr;
    const bool before = is_wanted;
    is_wanted = wanted != 0;
    if (is_wanted && thread_host != nullptr && !ensure_undertaker(*thread_host)) {
        is_wanted = before;
        return nullptr;
    }
    Py_RETURN_NONE;
}

bool ensure_undertaker(ThreadHost& host) {
    if (!is_wanted) return true;
    // One that ended without doing its work was cancelled: whoever it was to end still waits.
    if (host.undertaker != nullptr && !finished(host.undertaker)) return true;
    Py_CLEAR(host.undertaker);
    PyObject* function = PyCFunction_New(&bury_all_method, nullptr);
    if (function == nullptr) return false;
    PyFiber* made = new_fiber(host, {.function = function, .size_class = StackClass::k256K});
    Py_DECREF(function);
    if (made == nullptr || !promise_fiber(host, made)) {
        Py_XDECREF(as_object(made));
        return false;
    }
    host.undertaker = made;
    if (!host.out_of_stack.empty()) start_promised_fiber(host, made);
    return true;
}

bool hand_to_undertaker(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    if (!is_wanted || fiber.is_main() || host.undertaker == nullptr || finished(host.undertaker)) return false;
    PyFiber* self = host_of(fiber);
    Py_INCREF(as_object(self));
    host.out_of_stack.push_back(self);
    if (host.undertaker->fiber->state() == FiberState::kNew) start_promised_fiber(host, host.undertaker);
    report_running_out(fiber.stack());
    return true;
}

}  // namespace culm::extension
