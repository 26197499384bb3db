// Arming, withdrawing and re-arming the exception of one fiber. See pending_raise.hpp.
//
// async_exc takes only classes. An instance is delivered through a class made for it, whose construction returns the
// instance.
// Invariant: an exception that is already set when these are called is still set afterwards.
#include "interpreter/pending_raise.hpp"

#include <cassert>

#include "interpreter/saved_words.hpp"

namespace culm::interpreter {

namespace {

// Keeps the current exception of the caller out of the way.
class PreservedError {
public:
    PreservedError() noexcept { PyErr_Fetch(&type_, &value_, &traceback_); }
    ~PreservedError() { PyErr_Restore(type_, value_, traceback_); }
    PreservedError(const PreservedError&) = delete;
    PreservedError& operator=(const PreservedError&) = delete;

private:
    PyObject* type_ = nullptr;
    PyObject* value_ = nullptr;
    PyObject* traceback_ = nullptr;
};

PyObject* return_self(PyObject* self, PyObject*, PyObject*) { return Py_NewRef(self); }

PyMethodDef construct_delivered = {"__new__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(return_self)),
                                   METH_VARARGS | METH_KEYWORDS, "The exception that is being delivered."};

// A subclass of `base` whose construction yields `instance`: __new__ is a builtin bound to the instance. It derives
// from the instance's own class because 3.11 shows C code the class before it constructs.
PyObject* make_delivery_class(PyObject* instance, PyTypeObject* base) {
    PyObject* constructor = PyCFunction_New(&construct_delivered, instance);
    if (constructor == nullptr) return nullptr;
    PyObject* made = PyObject_CallFunction(reinterpret_cast<PyObject*>(&PyType_Type), "s(O){sN}",
                                           Py_TYPE(instance)->tp_name, base, "__new__", constructor);
    return made;
}

PyObject* deliverable_class(PyObject* exception) {
    if (PyExceptionClass_Check(exception)) return Py_NewRef(exception);
    assert(PyExceptionInstance_Check(exception));
    PyObject* made = make_delivery_class(exception, Py_TYPE(exception));
    if (made != nullptr) return made;
    PyErr_Clear();
    made = make_delivery_class(exception, reinterpret_cast<PyTypeObject*>(PyExc_BaseException));
    if (made != nullptr) return made;
    PyErr_Clear();  // out of memory: the class alone must do
    return Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(exception)));
}

// Puts the exception into the thread state, unless somebody else's waits there. True: it is there.
//
// The thread state is found by a number nobody else has for that moment: until a new OS thread begins to run, its state
// carries the identity of the fiber that started it, and would be found first.
bool arm(PyThreadState* tstate, PyObject* exception) noexcept {
    if (tstate->async_exc != nullptr) return false;
    const auto identity = tstate->thread_id;
    tstate->thread_id = reinterpret_cast<decltype(tstate->thread_id)>(tstate);
    PyThreadState_SetAsyncExc(tstate->thread_id, exception);
    tstate->thread_id = identity;
    return tstate->async_exc == exception;
}

void withdraw(PyThreadState* tstate, PendingRaise& pending) noexcept {
    if (pending.exception == nullptr) return;
    if (!pending.taken && tstate->async_exc == pending.exception) {
        tstate->async_exc = nullptr;
        forget_raise_request(tstate);
        pending.taken = true;
    }
    drop_pending_raise(pending);
}

}  // namespace

void resume_pending_raise(PyThreadState* tstate, PendingRaise& pending) noexcept {
    if (pending.exception == nullptr) [[likely]]
        return;
    if (!pending.taken) {
        if (tstate->async_exc != pending.exception) drop_pending_raise(pending);
        return;
    }
    if (!arm(tstate, pending.exception)) return;
    pending.taken = false;
    Py_DECREF(pending.exception);  // the reference that was taken; arming made a new one
}

void set_pending_raise(PyThreadState* tstate, PendingRaise& pending, PyObject* exception) noexcept {
    const PreservedError preserved;
    withdraw(tstate, pending);
    if (exception == nullptr) return;
    pending.exception = deliverable_class(exception);
    if (arm(tstate, pending.exception)) return;
    pending.taken = true;  // behind somebody else's: armed when this fiber next continues
    Py_INCREF(pending.exception);
}

PyObject* withdraw_pending_raise(PyThreadState* tstate, PendingRaise& pending) noexcept {
    if (pending.exception == nullptr) [[likely]]
        return nullptr;
    const PreservedError preserved;
    const bool waits = pending.taken || tstate->async_exc == pending.exception;
    PyObject* exception = waits ? Py_NewRef(pending.exception) : nullptr;
    withdraw(tstate, pending);
    return exception;
}

void drop_pending_raise(PendingRaise& pending) noexcept {
    PyObject* exception = pending.exception;
    const bool taken = pending.taken;
    pending = PendingRaise{};
    if (taken) Py_DECREF(exception);
    Py_XDECREF(exception);
}

int visit_pending_raise(const PendingRaise& pending, visitproc visit, void* arg) {
    Py_VISIT(pending.exception);
    if (pending.taken) Py_VISIT(pending.exception);
    return 0;
}

// --- interpreter.hpp

void raise_soon(ThreadRecord& thread, SavedState& state, PyObject* exception) noexcept {
    set_pending_raise(thread.tstate, words_of<CommonWords>(state).pending_raise, exception);
}

PyObject* withdraw_raise_soon(ThreadRecord& thread, SavedState& state) noexcept {
    return withdraw_pending_raise(thread.tstate, words_of<CommonWords>(state).pending_raise);
}

}  // namespace culm::interpreter
