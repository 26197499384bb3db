// A build without instruments: everything is an empty inline function in the header.
#include "culm/instrument.hpp"

static_assert(CULM_INSTRUMENTED == 0);
