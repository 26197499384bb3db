// Objects that are loaded after install() are patched before anything in them can be called; those that are unloaded
// are forgotten; the caller's search path still decides what dlopen finds.
#include <string>

#include "harness.hpp"
#include "table.hpp"

using namespace culm::runtime::interpose;

namespace {

bool patched(void* library, const char* name) {
    for (const VictimSlot* slot = load<VictimSlotsFunction>(library, "victim_slots")(); slot->name; ++slot) {
        if (std::string(slot->name) == name) return slot->address == find_entry(name)->replacement;
    }
    return false;
}

}  // namespace

TEST_CASE("a library opened by a patched library is patched when dlsym returns") {
    const VictimCalls& calls = victim();
    void* library = calls.dlopen(kVictimNow, RTLD_NOW);
    REQUIRE(library != nullptr);
    auto get = reinterpret_cast<VictimCallsFunction>(calls.dlsym(library, "victim_calls"));
    REQUIRE((get != nullptr));
    CHECK(patched(library, "recv"));
    CHECK(patched(library, "pthread_mutex_lock"));
    CHECK_FALSE(patched(library, "sem_wait"));

    Program program;
    Pair pair = socket_pair();
    char byte = 0;
    CHECK_OUTCOME(parked_until([&] { return get()->recv(pair.near, &byte, 1, 0); },
                               [&] { CHECK(::send(pair.far, "x", 1, 0) == 1); }),
                  1, kErrnoBefore);
    CHECK(byte == 'x');
}

TEST_CASE("a library opened without dlsym is patched when the next call parks") {
    const VictimCalls& calls = victim();
    void* library = calls.dlopen(kVictimFortified, RTLD_NOW);
    REQUIRE(library != nullptr);
    Program program;
    Pair pair = socket_pair();
    char byte = 0;
    parked_until([&] { return calls.recv(pair.near, &byte, 1, 0); }, [&] { ::send(pair.far, "x", 1, 0); });
    CHECK(patched(library, "poll"));
    CHECK(patched(library, "__read_chk"));
}

TEST_CASE("an unloaded library is forgotten and its address may be used again") {
    const VictimCalls& calls = victim();
    for (int round = 0; round < 5; ++round) {
        const std::size_t slots = statistics().slots;
        void* library = calls.dlopen(kVictimLazy, RTLD_NOW);
        REQUIRE(library != nullptr);
        REQUIRE(calls.dlsym(library, "victim_calls") != nullptr);
        CHECK(patched(library, "recv"));
        CHECK(statistics().slots > slots);
        CHECK(calls.dlclose(library) == 0);
        CHECK(statistics().slots == slots);
    }
}

// Under a sanitizer it is not so: its own dlopen stands in between. Then it must be as without interposition.
TEST_CASE("dlopen searches the RUNPATH of the library that calls it") {
    CHECK(::dlopen(kVictimHidden, RTLD_NOW) == nullptr);  // this program has no such path
    const VictimCalls& calls = victim();
    uninstall();
    void* expected = calls.dlopen(kVictimHidden, RTLD_NOW);
    WARN(expected != nullptr);
    if (expected) CHECK(calls.dlclose(expected) == 0);
    Options options;
    options.interpreter_object = reinterpret_cast<const void*>(&calls);
    REQUIRE(install(options));
    void* found = calls.dlopen(kVictimHidden, RTLD_NOW);
    CHECK((found != nullptr) == (expected != nullptr));
    if (found) CHECK(calls.dlclose(found) == 0);
}

TEST_CASE("dlsym with RTLD_DEFAULT and failures of dlopen behave as in libc") {
    CHECK(victim().dlsym(RTLD_DEFAULT, "recv") == ::dlsym(RTLD_DEFAULT, "recv"));
    CHECK(victim().dlsym(RTLD_DEFAULT, "no_such_function_anywhere") == nullptr);
    CHECK(victim().dlopen("/no/such/library.so", RTLD_NOW) == nullptr);
}
