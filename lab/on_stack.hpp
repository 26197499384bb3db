// Runs a function on a strategy's stack and lets it step out and in again.
//
// The strategy is told of each suspension and resumption, so that copying stacks work as well. The body must keep
// nothing across a step but what lies on its stack. Invariant: the function has ended, or is never resumed, when the
// object goes.
#pragma once

#include <cstdlib>

#include "culm/context.hpp"
#include "culm/stack_strategy.hpp"

namespace culm::lab {

class OnStack {
public:
    using Body = void (*)(OnStack& self, void* argument);

    OnStack(StackStrategy& strategy, StrategyStack& stack, Body body, void* argument)
        : strategy_(strategy), stack_(stack), body_(body), argument_(argument) {
        adopt_thread_context(outside_);
        prepare_context(inside_, stack.base, stack.limit(), &OnStack::run, this);
        leave();
    }
    ~OnStack() {
        retire_context(inside_);
        retire_context(outside_);
    }
    OnStack(const OnStack&) = delete;
    OnStack& operator=(const OnStack&) = delete;

    // Switches: to the body, until it steps out or ends.
    void step_in() {
        strategy_.resuming(stack_);
        switch_context(outside_, inside_);
        if (!ended_) leave();
    }
    // Switches: back to whoever stepped in.
    void step_out() { switch_context(inside_, outside_); }
    bool ended() const { return ended_; }
    const void* sp() const { return inside_.sp; }

private:
    void leave() {
        if (!strategy_.suspended(stack_, inside_.sp)) std::abort();  // no memory for a copy of a few hundred bytes
    }
    static void run(void* argument) {
        auto& self = *static_cast<OnStack*>(argument);
        self.body_(self, self.argument_);
        self.ended_ = true;
        switch_context(self.inside_, self.outside_, true);
        std::abort();
    }

    StackStrategy& strategy_;
    StrategyStack& stack_;
    Body body_;
    void* argument_;
    Context outside_;
    Context inside_;
    bool ended_ = false;
};

}  // namespace culm::lab
