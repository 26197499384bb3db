// What a stack costs to grow, page by page, against the first touch of plain mmap in the same run.
//
// The code that touches runs on the stack that grows. The two alternate, each with new stacks, so that what disturbs
// the machine disturbs both.
#include "experiment.hpp"
#include "measure.hpp"
#include "on_stack.hpp"
#include "strategies/strategies.hpp"

namespace culm::lab {

namespace {

constexpr int kRounds = 15;

struct Descent {
    std::byte* base;
    std::size_t pages;
    double ns_per_page;
};

// One byte in each of `pages` pages below the one the stack starts on.
void descend(OnStack&, void* argument) {
    auto& descent = *static_cast<Descent*>(argument);
    const std::size_t page = page_bytes();
    volatile std::byte* at = descent.base - page - page / 2;
    const std::int64_t start = now_ns();
    for (std::size_t i = 0; i < descent.pages; ++i) {
        *at = std::byte{1};
        at -= page;
    }
    descent.ns_per_page = static_cast<double>(now_ns() - start) / static_cast<double>(descent.pages);
}

Result<double> measure(StackStrategy& strategy, std::size_t limit_bytes, std::size_t pages) {
    Stacks stacks(strategy);
    if (const Result<void> created = stacks.create(limit_bytes, 1); !created) return created.error();
    Descent descent{stacks[0].base, pages, 0};
    OnStack run(strategy, stacks[0], &descend, &descent);
    run.step_in();
    return descent.ns_per_page;
}

}  // namespace

Answer growth(const Request& request) {
    const std::size_t pages_max = request.limit_bytes / page_bytes();
    if (pages_max < 4) return unsupported("a stack of this limit has no pages to grow by");
    const std::size_t pages = std::min(request.pages.value_or(64), pages_max - 2);
    StackStrategy& plain = strategies::bare_mmap();
    std::vector<double> own_ns;
    std::vector<double> plain_ns;
    std::vector<double> ratios;
    const std::uint64_t faults_before = request.strategy->faults_handled();
    for (int round = 0; round < kRounds; ++round) {
        const Result<double> own = measure(*request.strategy, request.limit_bytes, pages);
        if (!own) return unsupported(own.error());
        const Result<double> other = measure(plain, request.limit_bytes, pages);
        if (!other) return unsupported(other.error());
        own_ns.push_back(own.value());
        plain_ns.push_back(other.value());
        ratios.push_back(own.value() / other.value());
    }
    Answer answer;
    answer.object.add("pages", pages)
        .add("ns_per_page", median(own_ns))
        .add("plain_mmap_ns_per_page", median(plain_ns))
        .add("ratio", median(ratios))
        .add("faults_handled", (request.strategy->faults_handled() - faults_before) / kRounds);
    return answer;
}

}  // namespace culm::lab
