// What this program was built from.
#pragma once

#include "bracket/version.h"

namespace bracket {

const char* revision() noexcept;  ///< of the git repository, "-dirty" appended for uncommitted changes, or "unknown"

}  // namespace bracket
