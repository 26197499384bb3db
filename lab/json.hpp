// Writes the one JSON object that a run of the probe prints. Numbers, words, truth values, and objects within.
//
// Invariant: text() is a complete object at any time.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace culm::lab {

std::string json_string(std::string_view text);
std::string json_number(double number);

class JsonObject {
public:
    JsonObject& add(std::string_view name, std::string_view text) { return add_raw(name, json_string(text)); }
    JsonObject& add(std::string_view name, const char* text) {
        return text == nullptr ? add_null(name) : add(name, std::string_view(text));
    }
    JsonObject& add(std::string_view name, bool truth) { return add_raw(name, truth ? "true" : "false"); }
    JsonObject& add(std::string_view name, double number) { return add_raw(name, json_number(number)); }
    template <std::integral Number>
    JsonObject& add(std::string_view name, Number number) {
        return add_raw(name, std::to_string(number));
    }
    JsonObject& add(std::string_view name, const JsonObject& object) { return add_raw(name, object.text()); }
    JsonObject& add(std::string_view name, const std::vector<JsonObject>& objects);
    JsonObject& add_null(std::string_view name) { return add_raw(name, "null"); }

    std::string text() const { return "{" + members_ + "}"; }

private:
    JsonObject& add_raw(std::string_view name, std::string_view value);

    std::string members_;
};

}  // namespace culm::lab
