#include "tools/program/version.h"

#include "bracket_revision.h"

namespace bracket {

const char* revision() noexcept { return BRACKET_REVISION; }

}  // namespace bracket
