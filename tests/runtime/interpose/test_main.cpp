// The main function of every test program of interposition: installs a switch hook that checks how hooks use it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "harness.hpp"

namespace {

using culm::runtime::Fiber;

// Stands for an interpreter's lock, which libc calls are made without: enter takes it, leave gives it up.
bool enter(Fiber&) {
    ++hook_calls.entered;
    return true;
}
void leave(Fiber&, bool taken) {
    if (taken) ++hook_calls.left;
}
void cancelled_in_call(Fiber&) {
    ++hook_calls.cancelled;
    if (hook_calls.entered.load() <= hook_calls.left.load()) ++hook_calls.cancelled_without_lock;
}

bool cancelled_in_lock(Fiber& self) {
    cancelled_in_call(self);
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    culm::runtime::Embedder embedder;
    embedder.calls.enter = enter;
    embedder.calls.leave = leave;
    embedder.calls.cancelled = cancelled_in_call;
    embedder.calls.cancelled_in_lock = cancelled_in_lock;
    culm::runtime::set_embedder(embedder);
    return doctest::Context(argc, argv).run();
}
