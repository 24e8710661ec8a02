// One metric of one step.
#pragma once

#include <string>

namespace bracket {

struct NamedValue {
  std::string name;
  double value = 0.0;
};

}  // namespace bracket
