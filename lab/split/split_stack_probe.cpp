// culm-split-stack-probe: what a call costs when its stack is split, in a program compiled with -fsplit-stack.
//
// A thread with a small stack recurses; at each depth it times calls of one small function. Where the frame of that
// function just does not fit, every call links a segment and every return unlinks it: the hot split. Prints one JSON
// object. Invariant: every function here is compiled for split stacks; libc is not, which is the point.
#include <pthread.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <vector>

namespace {

constexpr int kDepths = 400;
constexpr int kCallsPerDepth = 2000;
constexpr std::size_t kThreadStackBytes = std::size_t{64} << 10;
// Slower than this many times the cheapest depth: a segment was linked for every call.
constexpr double kHotFactor = 5;

double ns_per_call[kDepths];

long long now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

__attribute__((noinline)) int leaf(int seed) {
    volatile char frame[1200];  // as a function has that formats a line
    frame[seed & 255] = static_cast<char>(seed);
    return frame[seed & 255] + 1;
}

__attribute__((noinline)) int descend(int depth) {
    volatile char frame[1000];
    frame[depth & 255] = static_cast<char>(depth);
    int sum = 0;
    const long long start = now_ns();
    for (int i = 0; i < kCallsPerDepth; ++i) sum += leaf(i);
    ns_per_call[depth] = static_cast<double>(now_ns() - start) / kCallsPerDepth;
    if (depth + 1 < kDepths) sum += descend(depth + 1);
    return sum + frame[depth & 255];
}

void* run(void* result) {
    *static_cast<int*>(result) = descend(0);
    return nullptr;
}

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

}  // namespace

int main() {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kThreadStackBytes);
    pthread_t thread;
    int result = 0;
    if (pthread_create(&thread, &attributes, &run, &result) != 0) {
        std::puts("{\"unsupported\": \"a thread was refused\"}");
        return 0;
    }
    pthread_join(thread, nullptr);

    const double cheapest = *std::min_element(ns_per_call, ns_per_call + kDepths);
    std::vector<double> usual;
    std::vector<double> hot;
    for (const double ns : ns_per_call) (ns > kHotFactor * cheapest ? hot : usual).push_back(ns);
    std::printf("{\"calls\": %d, \"depths\": %d, \"ns_per_call_in_segment\": %.3f, ", kDepths * kCallsPerDepth, kDepths,
                median(usual));
    if (hot.empty()) {
        std::printf("\"ns_per_hot_split_call\": null, ");
    } else {
        std::printf("\"ns_per_hot_split_call\": %.3f, ", median(hot));
    }
    std::printf("\"hot_share\": %.4f, \"linker\": \"%s\"}\n", static_cast<double>(hot.size()) / kDepths,
                CULM_SPLIT_LINKER);
    return result == -1;  // used, so that no call is optimised away
}
