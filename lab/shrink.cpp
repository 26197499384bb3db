// What it costs to take memory back from suspended stacks: one by one, in batches, and from stacks that have none to
// give.
//
// Each stack is `pages` deep and suspended near its base. What came back is seen by asking which pages are present.
#include "experiment.hpp"
#include "measure.hpp"

namespace culm::lab {

namespace {

constexpr std::size_t kSuspendedBytes = 256;
constexpr std::size_t kBatches[] = {1, 16, 64, 256};
constexpr int kRounds = 5;
// Where each fault waits for another thread, a round can take seconds: no further round begins after this.
constexpr std::int64_t kRoundsBeginNs = 2'000'000'000;

struct Timing {
    std::vector<double> ns_per_stack;
    std::vector<double> ns_per_page;
};

class Subject {
public:
    Subject(StackStrategy& strategy, Stacks& stacks, std::size_t pages)
        : strategy_(strategy), stacks_(stacks), pages_(pages) {
        for (StrategyStack& stack : stacks) suspended_.push_back({&stack, stack.base - kSuspendedBytes});
    }

    void deepen() {
        for (const StrategyStack& stack : stacks_) touch_down(stack, pages_ * page_bytes());
    }
    // Nanoseconds per stack, `at_once` of them to a call.
    double shrink_by(std::size_t at_once) {
        const std::int64_t start = now_ns();
        for (std::size_t from = 0; from < suspended_.size(); from += at_once) {
            const std::size_t count = std::min(at_once, suspended_.size() - from);
            strategy_.shrink(std::span(suspended_).subspan(from, count));
        }
        return static_cast<double>(now_ns() - start) / static_cast<double>(suspended_.size());
    }
    std::size_t present_bytes() const {
        std::size_t bytes = 0;
        for (const StrategyStack& stack : stacks_) {
            const std::size_t span = (pages_ + 2) * page_bytes();
            bytes += resident_bytes(stack.base - span, span);
        }
        return bytes;
    }
    std::size_t stacks() const { return suspended_.size(); }

private:
    StackStrategy& strategy_;
    Stacks& stacks_;
    std::size_t pages_;
    std::vector<SuspendedStrategyStack> suspended_;
};

}  // namespace

Answer shrink(const Request& request) {
    const StrategyTraits& traits = request.strategy->traits();
    if (!traits.pointers_stay_valid)
        return unsupported("a copying stack occupies what it uses; there is nothing to take back");
    if (!traits.shrinks) return unsupported("this strategy commits a stack once and for all");
    const std::size_t pages = request.pages.value_or(64);
    if ((pages + 2) * page_bytes() > request.limit_bytes) return unsupported("--pages is more than the limit");
    Stacks stacks(*request.strategy);
    if (const Result<void> created = stacks.create(request.limit_bytes, request.count.value_or(256)); !created) {
        return unsupported(created.error());
    }
    Subject subject(*request.strategy, stacks, pages);

    // What may stay: the page in use and a spare one.
    const std::size_t kept = subject.stacks() * 2 * page_bytes();
    subject.deepen();
    const std::size_t before = subject.present_bytes();
    subject.shrink_by(1);
    const std::size_t after = subject.present_bytes();
    const double excess = static_cast<double>(before) - static_cast<double>(kept);
    const double back = static_cast<double>(before) - static_cast<double>(std::max(after, kept));

    Timing timings[std::size(kBatches)];
    std::vector<double> empty_ns;
    const double given_pages = static_cast<double>(pages - 2);
    int rounds = 0;
    for (const std::int64_t start = now_ns(); rounds < kRounds && (rounds == 0 || now_ns() - start < kRoundsBeginNs);
         ++rounds) {
        for (std::size_t i = 0; i < std::size(kBatches); ++i) {
            subject.deepen();
            const double ns = subject.shrink_by(kBatches[i]);
            timings[i].ns_per_stack.push_back(ns);
            timings[i].ns_per_page.push_back(ns / given_pages);
        }
        empty_ns.push_back(subject.shrink_by(1));
    }
    std::vector<JsonObject> batches;
    for (std::size_t i = 1; i < std::size(kBatches); ++i) {
        JsonObject batch;
        batches.push_back(batch.add("ranges", kBatches[i])
                              .add("ns_per_stack", median(timings[i].ns_per_stack))
                              .add("ns_per_page", median(timings[i].ns_per_page)));
    }
    Answer answer;
    answer.object.add("pages", pages)
        .add("count", subject.stacks())
        .add("rounds", static_cast<std::size_t>(rounds))
        .add("single_ns_per_stack", median(timings[0].ns_per_stack))
        .add("single_ns_per_page", median(timings[0].ns_per_page))
        .add("empty_ns_per_stack", median(empty_ns))
        .add("batches", batches)
        .add("bytes_returned_share", excess > 0 ? back / excess : 0.0);
    return answer;
}

}  // namespace culm::lab
