#include "bracket/version.h"

namespace bracket {

const char* version() noexcept { return BRACKET_VERSION; }

}  // namespace bracket
