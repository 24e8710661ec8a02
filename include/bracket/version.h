// Which release of the library a program was linked with.
#pragma once

namespace bracket {

/// "0.1.0": major.minor.patch. Before 1.0 a new minor version may change the interface.
const char* version() noexcept;

}  // namespace bracket
