// Runs a function on a stack of its own until it ends, and lets it step out and in again meanwhile.
//
// Invariant: the function has ended, or been given up, before the object goes.
#pragma once

#include <cassert>
#include <cstddef>
#include <functional>
#include <utility>

#include "culm/context.hpp"
#include "culm/stack.hpp"

namespace culm::testing {

class OnStack {
public:
    OnStack(std::byte* base, std::byte* limit, std::function<void(OnStack&)> body) : body_(std::move(body)) {
        adopt_thread_context(outside_);
        prepare_context(inside_, base, limit, &OnStack::run, this);
    }
    OnStack(const Stack& stack, std::function<void(OnStack&)> body)
        : OnStack(stack.base, stack.limit(), std::move(body)) {}
    ~OnStack() {
        retire_context(inside_);
        retire_context(outside_);
    }
    OnStack(const OnStack&) = delete;
    OnStack& operator=(const OnStack&) = delete;

    void step_in() { switch_context(outside_, inside_); }   // from outside
    void step_out() { switch_context(inside_, outside_); }  // from inside
    bool ended() const { return ended_; }
    const void* sp() const { return inside_.sp; }

private:
    static void run(void* argument) {
        auto& self = *static_cast<OnStack*>(argument);
        self.body_(self);
        self.ended_ = true;
        switch_context(self.inside_, self.outside_, true);
        assert(!"resumed after its end");
    }

    Context outside_;
    Context inside_;
    std::function<void(OnStack&)> body_;
    bool ended_ = false;
};

}  // namespace culm::testing
