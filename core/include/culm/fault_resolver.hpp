// Faults that are no mistakes: whoever commits memory on a fault registers here and is asked first.
//
// Called by the handler of overflow.hpp, on the alternate stack. Invariant: resolvers are only ever added, so the
// handler takes no lock.
#pragma once

#include "culm/result.hpp"

namespace culm {

// True when the access at `address` will now succeed: the faulting instruction runs again. Async-signal-safe.
using FaultResolver = bool (*)(void* address);

// Adds one, once however often it is called, and installs the fault handler of the process if nobody has yet.
Result<void> add_fault_resolver(FaultResolver resolver) noexcept;

// Asks each in the order they were added. Async-signal-safe.
bool resolve_fault(void* address) noexcept;

}  // namespace culm
