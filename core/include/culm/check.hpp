// What a caller of the C++ API has done wrong ends the process with a sentence: what was expected, and what to do.
//
// Core and runtime throw nothing, and a mistake of the program is no Error that the environment could be blamed for. So
// misuse that would otherwise corrupt memory is checked in every build. A plain assert is for our own invariants, which
// no caller can break. Invariant: a check that fails allocates nothing and is async-signal-safe.
#pragma once

namespace culm {

// Writes "culm: <sentence>" and a line break to stderr and aborts. `detail`, if there is one, follows the sentence
// after a colon and a space.
[[noreturn]] void end_by_misuse(const char* sentence, const char* detail = nullptr) noexcept;

// `sentence` names the function that was called, says what it expected, and what to do instead. For example:
// "StackPool::take() without a promise: call reserve() first, and take() once for each promise".
constexpr void check(bool condition, const char* sentence) noexcept {
    if (!condition) [[unlikely]]
        end_by_misuse(sentence);
}

}  // namespace culm
