// What the strategies have in common that map each stack by itself: n mappings are made, or none.
#pragma once

#include "strategy/strategy.hpp"

namespace culm::strategy {

class MappingEach : public StackStrategy {
public:
    void destroy(std::span<const StrategyStack> stacks) noexcept final;
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override;

protected:
    enum class GuardPage : bool { kNone, kBelow };
    explicit MappingEach(GuardPage guard) noexcept : guard_(guard) {}

    // begin() is called before the first of several stacks is mapped, the other for each stack once it is mapped. An
    // error from either makes the creation of all of them fail.
    virtual Result<void> begin() noexcept { return {}; }
    virtual int mapped([[maybe_unused]] os::Range stack) noexcept { return 0; }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept final;
    std::size_t guard_bytes() const noexcept { return guard_ == GuardPage::kNone ? 0 : kernel_features().page_bytes; }

    GuardPage guard_;
};

}  // namespace culm::strategy
