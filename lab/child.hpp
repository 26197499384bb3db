// A part of an experiment that may die, in a child process that reports numbers while it lives.
//
// Invariant: the child never returns from `body`, and is waited for before run_in_child() returns.
#pragma once

#include <cstdint>
#include <functional>

namespace culm::lab {

struct ChildEnd {
    bool was_made = false;        // fork succeeded
    std::int64_t last_word = -1;  // the last number it reported; -1: none
    int signal = 0;               // that ended it; 0: none
    int exit_code = -1;
};

// Tells the parent a number. The parent keeps the last one that it was told.
using Tell = std::function<void(std::int64_t)>;

// What `body` returns is the exit code. A child that hangs is ended by SIGALRM after some seconds.
ChildEnd run_in_child(const std::function<int(const Tell&)>& body);
const char* signal_name(int signal);  // null for 0

}  // namespace culm::lab
