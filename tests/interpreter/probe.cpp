// Switching between probes. See probe.hpp.
#include "probe.hpp"

#include <cassert>
#include <span>

#include "culm/stack_arena.hpp"

namespace culm::probe {

PyObject* ProbeExit = nullptr;

namespace {

thread_local Host* host_ = nullptr;

interpreter::SavedState& state_of(Host& host, PyProbe* probe) { return probe ? *probe->state : host.main_state; }
Context& context_of(Host& host, PyProbe* probe) { return probe ? probe->context : host.main_context; }

void run(void* argument);

bool start(Host& host, PyProbe* self) {
    Stack stack;
    if (!StackArena::of(self->size_class).take(std::span(&stack, 1))) {
        PyErr_NoMemory();
        return false;
    }
    self->stack = stack;
    self->state = reinterpret_cast<interpreter::SavedState*>(stack.base - sizeof(interpreter::SavedState));
    const std::size_t chunk_bytes = interpreter::data_stack_chunk_bytes();
    std::byte* chunk = stack.base - sizeof(interpreter::SavedState) - chunk_bytes;
    PyObject* context = self->inherited;
    self->inherited = nullptr;
    interpreter::prepare(*self->state, host.record, chunk, chunk_bytes, stack.limit(), chunk, self->identity, context);
    prepare_context(self->context, chunk, stack.limit(), run, self);
    self->phase = Phase::kSuspended;
    return true;
}

void release_stack(PyProbe* self) {
    retire_context(self->context);
    StackArena::of(self->size_class).give_back(std::span(&self->stack, 1));
    self->stack = Stack{};
    self->state = nullptr;
}

// Between here and the swap nothing allocates, raises or runs Python.
void transfer(Host& host, PyProbe* from, PyProbe* to, bool ends) {
    if (from != nullptr) from->phase = ends ? Phase::kFinished : Phase::kSuspended;
    if (to != nullptr) to->phase = Phase::kRunning;
    host.running = to;
    interpreter::switch_state(host.record, state_of(host, from), state_of(host, to));
    switch_context(context_of(host, from), context_of(host, to), ends);
    interpreter::after_switch(host.record, state_of(host, from));
}

// First and last on a probe's stack.
void run(void* argument) {
    auto* self = static_cast<PyProbe*>(argument);
    Host& host = *host_;
    interpreter::after_switch(host.record, *self->state);
    PyObject* value = self->transferred;
    self->transferred = nullptr;
    PyObject* result = nullptr;
    if (self->exception != nullptr) {
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(self->exception)), self->exception);
        Py_CLEAR(self->exception);
    } else {
        result = value == Py_None ? PyObject_CallNoArgs(self->function) : PyObject_CallOneArg(self->function, value);
    }
    Py_XDECREF(value);
    interpreter::raise_soon(host.record, *self->state, nullptr);
    if (result == nullptr) {
        PyObject *type, *raised, *traceback;
        PyErr_Fetch(&type, &raised, &traceback);
        PyErr_NormalizeException(&type, &raised, &traceback);
        if (traceback != nullptr) PyException_SetTraceback(raised, traceback);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        self->exception = raised;
    }
    interpreter::finish_running(host.record, *self->state);
    self->transferred = result;
    transfer(host, self, self->resumer, true);
    assert(!"a finished probe was continued");
}

// On the side of the resumer: what `self` handed over when it parked or ended.
PyObject* receive_from(PyProbe* self) {
    if (self->phase != Phase::kFinished) {
        PyObject* value = self->transferred;
        self->transferred = nullptr;
        return value;
    }
    release_stack(self);
    PyObject* result = self->transferred;
    self->transferred = nullptr;
    if (self->exception == nullptr) return result;
    PyObject* exception = self->exception;
    self->exception = nullptr;
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception)), exception);
    Py_DECREF(exception);
    return nullptr;
}

PyObject* enter(PyProbe* self) {
    Host& host = *host_;
    PyProbe* me = host.running;
    self->resumer = me;
    if (me != nullptr) me->waits_for_resumed = true;
    Py_INCREF(self);
    transfer(host, me, self, false);
    if (me != nullptr) me->waits_for_resumed = false;
    PyObject* result = receive_from(self);
    Py_DECREF(self);
    return result;
}

bool check_can_continue(PyProbe* self) {
    const bool parked = self->phase == Phase::kSuspended && !self->waits_for_resumed;
    if (self->phase == Phase::kFresh || parked) return true;
    PyErr_SetString(PyExc_RuntimeError, "this probe is neither fresh nor parked");
    return false;
}

}  // namespace

Host* host() {
    if (host_ != nullptr) return host_;
    auto* made = new Host;
    if (!interpreter::adopt_thread(made->record)) {
        delete made;
        return nullptr;
    }
    interpreter::prepare_main(made->main_state, made->record);
    adopt_thread_context(made->main_context);
    host_ = made;
    return host_;
}

PyObject* resume(PyProbe* self, PyObject* value) {
    Host* current = host();
    if (current == nullptr || !check_can_continue(self)) return nullptr;
    if (self->phase == Phase::kFresh && !start(*current, self)) return nullptr;
    self->transferred = Py_NewRef(value);
    return enter(self);
}

PyObject* throw_into(PyProbe* self, PyObject* exception) {
    Host* current = host();
    if (current == nullptr || !check_can_continue(self)) return nullptr;
    if (self->phase == Phase::kFresh && !start(*current, self)) return nullptr;
    self->exception = Py_NewRef(exception);
    self->transferred = nullptr;
    return enter(self);
}

PyObject* park(PyObject* value) {
    Host* current = host();
    if (current == nullptr) return nullptr;
    PyProbe* self = current->running;
    if (self == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "park() outside of a probe");
        return nullptr;
    }
    self->transferred = Py_NewRef(value);
    transfer(*current, self, self->resumer, false);
    PyObject* received = self->transferred;
    self->transferred = nullptr;
    if (self->exception == nullptr) return received;
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(self->exception)), self->exception);
    Py_CLEAR(self->exception);
    return nullptr;
}

PyObject* abandon(PyProbe* self) {
    if (!check_can_continue(self)) return nullptr;
    if (self->phase == Phase::kFresh) Py_RETURN_NONE;
    self->phase = Phase::kAbandoned;
    interpreter::abandon(*self->state);
    release_stack(self);
    Py_RETURN_NONE;
}

}  // namespace culm::probe
