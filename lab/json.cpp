// The writing of JSON: quoting, and numbers that every reader takes.
#include "json.hpp"

#include <cmath>
#include <cstdio>

namespace culm::lab {

std::string json_string(std::string_view text) {
    std::string quoted = "\"";
    for (const char letter : text) {
        if (letter == '"' || letter == '\\') {
            quoted += '\\';
            quoted += letter;
        } else if (static_cast<unsigned char>(letter) < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(letter));
            quoted += escaped;
        } else {
            quoted += letter;
        }
    }
    return quoted + "\"";
}

std::string json_number(double number) {
    if (!std::isfinite(number)) return "null";
    char text[32];
    std::snprintf(text, sizeof(text), "%.10g", number);
    return text;
}

JsonObject& JsonObject::add(std::string_view name, const std::vector<JsonObject>& objects) {
    std::string list;
    for (const JsonObject& object : objects) {
        if (!list.empty()) list += ", ";
        list += object.text();
    }
    return add_raw(name, "[" + list + "]");
}

JsonObject& JsonObject::add_raw(std::string_view name, std::string_view value) {
    if (!members_.empty()) members_ += ", ";
    members_ += json_string(name);
    members_ += ": ";
    members_ += value;
    return *this;
}

}  // namespace culm::lab
