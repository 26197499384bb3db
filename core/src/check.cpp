// The sentence on stderr, and the end of the process.
#include "culm/check.hpp"

#include <cstdlib>
#include <cstring>

#include "os/os.hpp"

namespace culm {

namespace {

void write_text(const char* text) noexcept { os::write_to_stderr(text, std::strlen(text)); }

}  // namespace

void end_by_misuse(const char* sentence, const char* detail) noexcept {
    write_text("culm: ");
    write_text(sentence);
    if (detail != nullptr) {
        write_text(": ");
        write_text(detail);
    }
    write_text("\n");
    std::abort();
}

}  // namespace culm
