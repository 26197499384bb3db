// Children: fork, a pipe for their numbers, and how they ended.
#include "child.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace culm::lab {

namespace {

constexpr unsigned kSecondsMax = 10;

}  // namespace

ChildEnd run_in_child(const std::function<int(const Tell&)>& body) {
    ChildEnd end;
    int ends[2];
    if (pipe(ends) != 0) return end;
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child < 0) {
        close(ends[0]);
        close(ends[1]);
        return end;
    }
    if (child == 0) {
        close(ends[0]);
        // If somebody ends this program by a signal, its children end with it.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(kSecondsMax);
        // The parent wants to see the fault in how the child ended. The report that our handler would write is not
        // wanted.
        std::signal(SIGBUS, SIG_DFL);
        _exit(body([&](std::int64_t word) {
            if (write(ends[1], &word, sizeof(word)) != static_cast<ssize_t>(sizeof(word))) _exit(127);
        }));
    }
    end.was_made = true;
    close(ends[1]);
    for (std::int64_t word = 0;;) {
        const ssize_t got = read(ends[0], &word, sizeof(word));
        if (got < 0 && errno == EINTR) continue;
        if (got != static_cast<ssize_t>(sizeof(word))) break;
        end.last_word = word;
    }
    close(ends[0]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
    if (WIFEXITED(status)) end.exit_code = WEXITSTATUS(status);
    return end;
}

const char* signal_name(int signal) {
    switch (signal) {
        case 0:
            return nullptr;
        case SIGSEGV:
            return "SIGSEGV";
        case SIGBUS:
            return "SIGBUS";
        case SIGALRM:
            return "SIGALRM";
        case SIGABRT:
            return "SIGABRT";
        default:
            return strsignal(signal);
    }
}

}  // namespace culm::lab
