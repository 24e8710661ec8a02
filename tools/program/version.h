// What this program was built from.
#pragma once

namespace bracket {

const char* version() noexcept;   ///< "0.1.0"
const char* revision() noexcept;  ///< of the git repository, "-dirty" appended for uncommitted changes, or "unknown"

}  // namespace bracket
