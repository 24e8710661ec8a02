// The libraries that were not found when this was built, and the list of those that were.
#include <array>

#include "bench/libraries/libraries.h"

namespace bracket::bench {

#ifndef BRACKET_WITH_CUBLAS
const DenseLibrary* cublas() { return nullptr; }
#endif
#ifndef BRACKET_WITH_CUSOLVER
const FactorLibrary* cusolver() { return nullptr; }
#endif
#ifndef BRACKET_WITH_CUDNN
const ImageLibrary* cudnn() { return nullptr; }
#endif
#ifndef BRACKET_WITH_CUB
const ElementLibrary* cub_library() { return nullptr; }
#endif
#ifndef BRACKET_WITH_CURAND
const RandomLibrary* curand() { return nullptr; }
#endif

std::string libraries_text() {
  std::string with, without;
  const auto add = [&](const char* name, const auto* library) {
    std::string& text = library != nullptr ? with : without;
    text += (text.empty() ? "" : ", ") + std::string(name) + (library != nullptr ? " " + library->version : "");
  };
  add("cublas", cublas());
  add("cusolver", cusolver());
  add("cudnn", cudnn());
  add("cub", cub_library());
  add("curand", curand());
  if (with.empty()) return "none";
  return with + (without.empty() ? "" : "; without " + without);
}

}  // namespace bracket::bench
