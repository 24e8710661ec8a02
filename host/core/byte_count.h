// Byte counts for people: "1.50 MiB (1572864 bytes)".
#pragma once

#include <cstdint>
#include <string>

namespace bracket {

std::string byte_count(std::int64_t bytes);

}  // namespace bracket
