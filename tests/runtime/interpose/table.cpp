// The table itself: every symbol exists, and the slots of a victim hold the replacements, each in its scope; uninstall
// puts back what was there.
#include "table.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "harness.hpp"

using namespace culm::runtime::interpose;

namespace {

std::map<std::string, void*> slots_of(void* library) {
    std::map<std::string, void*> result;
    for (const VictimSlot* slot = load<VictimSlotsFunction>(library, "victim_slots")(); slot->name; ++slot) {
        result[slot->name] = slot->address;
    }
    return result;
}

}  // namespace

TEST_CASE("every symbol of the table is in libc, in the victim, and found by name") {
    void* library = open_victim(kVictimNow);
    const auto before = slots_of(library);
    resolve_real_functions();
    CHECK(
        std::is_sorted(table().begin(), table().end(), [](const Entry& a, const Entry& b) { return a.name < b.name; }));
    for (const Entry& entry : table()) {
        const std::string name(entry.name);
        CAPTURE(name);
        CHECK(*entry.real != nullptr);
        CHECK(find_entry(entry.name) == &entry);
        REQUIRE(before.count(name) == 1);
        CHECK(::dlsym(RTLD_DEFAULT, name.c_str()) != nullptr);
        CHECK(before.at(name) != entry.replacement);
    }
    CHECK(before.size() == table().size());
    CHECK(find_entry("printf") == nullptr);
}

TEST_CASE("slots hold the replacements exactly in their scope, and what they held before after uninstall") {
    void* interpreter = open_victim(kVictimInterpreter);
    void* other = open_victim(kVictimLazy);
    const auto interpreter_before = slots_of(interpreter);
    const auto other_before = slots_of(other);
    CHECK_FALSE(installed());
    Options options;
    options.interpreter_object = ::dlsym(interpreter, "victim_calls");
    REQUIRE(install(options));
    CHECK(installed());
    for (const Entry& entry : table()) {
        const std::string name(entry.name);
        CAPTURE(name);
        const bool in_interpreter = slots_of(interpreter).at(name) == entry.replacement;
        const bool in_other = slots_of(other).at(name) == entry.replacement;
        CHECK(in_interpreter == (entry.scope != Scope::kAllButInterpreter));
        CHECK(in_other == (entry.scope != Scope::kInterpreterOnly));
    }
    const Statistics first = statistics();
    CHECK(first.objects >= 2);
    CHECK(first.slots >= 2 * table().size() - 40);
    REQUIRE(install({}));  // again: nothing new, and the interpreter is remembered
    CHECK(statistics().slots == first.slots);
    CHECK(slots_of(interpreter) != interpreter_before);
    uninstall();
    CHECK_FALSE(installed());
    CHECK(slots_of(interpreter) == interpreter_before);
    CHECK(slots_of(other) == other_before);
    CHECK(statistics().slots == 0);
}

TEST_CASE("install from many threads at once patches once") {
    std::vector<std::thread> threads;
    std::atomic<int> failures{0};
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < 20; ++round) {
                if (!install({})) ++failures;
                if (round % 5 == 4) uninstall();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(failures == 0);
    uninstall();
    CHECK(statistics().slots == 0);
}

TEST_CASE("libc and this program are left alone") {
    REQUIRE(install({}));
    CHECK(reinterpret_cast<void*>(&::poll) == ::dlsym(RTLD_DEFAULT, "poll"));
    uninstall();
}
