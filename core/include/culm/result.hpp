// A value, or the reason the environment said no.
//
// Core and runtime throw nothing. A function that depends on the kernel returns Result<T>; the caller must look. Who
// takes the value of a result that is an error ends the process, with the error as the reason.
// Invariant: an Error carries the errno of the failed call and points only to string literals.
#pragma once

#include <utility>
#include <variant>

#include "culm/check.hpp"

namespace culm {

struct Error {
    int code = 0;                // errno of the call that failed
    const char* operation = "";  // what was attempted: "reserve stacks", "install guard"
    const char* advice = "";     // what the user can do about it, one sentence
};

template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : content_(std::in_place_index<1>, error) {}

    explicit operator bool() const noexcept { return content_.index() == 0; }
    T& value() & noexcept {
        expect_value();
        return *std::get_if<0>(&content_);
    }
    const T& value() const& noexcept {
        expect_value();
        return *std::get_if<0>(&content_);
    }
    T&& value() && noexcept {
        expect_value();
        return std::move(*std::get_if<0>(&content_));
    }
    const Error& error() const noexcept {
        check(content_.index() == 1, "Result::error() of a result that is a value: test it first, as in if (!result)");
        return *std::get_if<1>(&content_);
    }

private:
    void expect_value() const noexcept {
        if (const Error* error = std::get_if<1>(&content_)) [[unlikely]] {
            end_by_misuse(
                "Result::value() of a result that is an error: test it first, as in if (result). It failed to",
                error->operation);
        }
    }

    std::variant<T, Error> content_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(error), failed_(true) {}

    explicit operator bool() const noexcept { return !failed_; }
    const Error& error() const noexcept { return error_; }  // its code is 0 when nothing failed

private:
    Error error_;
    bool failed_ = false;
};

}  // namespace culm
