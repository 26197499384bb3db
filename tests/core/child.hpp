// Runs something dangerous in a child process and tells what became of it.
//
// Invariant: the child never returns into the test framework.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

namespace culm::testing {

struct ChildEnd {
    int status = 0;           // as waitpid gives it
    std::string stderr_text;  // all it wrote there

    bool died_of(int signal) const { return WIFSIGNALED(status) && WTERMSIG(status) == signal; }
    // A check of culm's (check.hpp) has ended it, and this is part of the sentence.
    bool ended_by_check(const std::string& sentence) const {
        return died_of(SIGABRT) && stderr_text.find("culm: ") != std::string::npos &&
               stderr_text.find(sentence) != std::string::npos;
    }
    bool exited_with(int code) const { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
};

// Faults end the child as they would without a sanitizer's handlers.
inline void use_default_fault_actions() {
    std::signal(SIGSEGV, SIG_DFL);
    std::signal(SIGBUS, SIG_DFL);
}

// `body` runs in the child; what it returns is the exit code.
template <class Body>
ChildEnd run_in_child(Body body) {
    int ends[2];
    if (pipe(ends) != 0) return {};
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(body());
    }
    close(ends[1]);
    ChildEnd end;
    char buffer[1024];
    for (ssize_t got = 0; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
        end.stderr_text.append(buffer, static_cast<std::size_t>(got));
    }
    close(ends[0]);
    waitpid(child, &end.status, 0);
    return end;
}

// The same for a body that is to end by abort(), which the test framework would otherwise catch.
template <class Body>
ChildEnd run_misuse(Body body) {
    return run_in_child([&] {
        std::signal(SIGABRT, SIG_DFL);
        body();
        return 0;
    });
}

}  // namespace culm::testing
