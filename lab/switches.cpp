// Which switches this build has.
#include "switches.hpp"

#include "culm/context.hpp"

namespace culm::lab {

#if !CULM_HAVE_BOOST_CONTEXT
double round_trip_by_boost(std::span<const Place>, std::size_t) { return 0; }
#endif

std::span<const SwitchKind> switch_kinds() {
    static const SwitchKind kinds[] = {
        {"assembly", context_implementation(), nullptr, &round_trip_by_assembly},
        {"ucontext", "makecontext and swapcontext", nullptr, &round_trip_by_ucontext},
        {"boost", "boost::context::detail::jump_fcontext",
         CULM_HAVE_BOOST_CONTEXT ? nullptr : "culm was built without Boost.Context", &round_trip_by_boost},
    };
    return kinds;
}

}  // namespace culm::lab
