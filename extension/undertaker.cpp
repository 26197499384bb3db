// The undertaker's Python side: its object, its function, and the outcome of those that it buries. See undertaker.hpp.
#include "undertaker.hpp"

#include "culm/runtime/undertaker.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "overflow.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::Undertaker;

namespace {

PyObject* bury_all(PyObject*, PyObject*) {
    ThreadHost& host = *thread_host;
    Undertaker::bury_all(*host.scheduler);
    if (host.closing || Undertaker::keep_ready(*host.scheduler)) Py_RETURN_NONE;
    return nullptr;
}

PyMethodDef bury_all_method = {"end_fibers_out_of_stack", bury_all, METH_NOARGS,
                               "Ends the fibers of this thread that have run out of stack in C code."};

}  // namespace

PyObject* get_overflow_ends_fibers(PyObject*, PyObject*) { return PyBool_FromLong(Undertaker::is_wanted()); }

PyObject* set_overflow_ends_fibers(PyObject*, PyObject* truth) {
    const int wanted = PyObject_IsTrue(truth);
    if (wanted < 0) return nullptr;
    const bool before = Undertaker::is_wanted();
    Undertaker::set_wanted(wanted != 0);
    if (thread_host != nullptr && !Undertaker::keep_ready(*thread_host->scheduler)) {
        Undertaker::set_wanted(before);
        return nullptr;
    }
    Py_RETURN_NONE;
}

Fiber* make_undertaker() {
    ThreadHost& host = *thread_host;
    PyObject* function = PyCFunction_New(&bury_all_method, nullptr);
    if (function == nullptr) return nullptr;
    PyFiber* made = new_fiber(host, {.function = function, .size_class = StackClass::k256K});
    Py_DECREF(function);
    if (made == nullptr) return nullptr;
    if (!promise_fiber(host, made)) {
        Py_DECREF(as_object(made));
        return nullptr;
    }
    made->holds_scheduled = true;  // our reference: the runtime starts it, now or later
    return made->fiber;
}

void let_undertaker_go(Fiber& fiber) {
    PyFiber* self = host_of(fiber);
    if (self == nullptr || !self->holds_scheduled || fiber.state() == runtime::FiberState::kRunning) return;
    self->holds_scheduled = false;
    Py_DECREF(as_object(self));
}

void bury(Fiber& fiber) {
    PyFiber* self = host_of(fiber);
    Py_INCREF(as_object(self));
    give_up_fiber(*thread_host, self, make_stack_overflow(self));
    Py_DECREF(as_object(self));
}

}  // namespace culm::extension
