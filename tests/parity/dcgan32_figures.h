// One training iteration of DCGAN-32 in double precision, reduced to the figures that dcgan32_step.py computes by
// PyTorch's autograd: losses, and for every tensor the 2-norm and three random projections of its gradient and of its
// change. Cases, names and meaning of the figures are those of that script.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace bracket::test {

std::vector<std::string> dcgan32_cases();
/// Runs the iteration on the CPU. Throws InvalidArgument for an unknown case.
nlohmann::json dcgan32_figures(const std::string& name);

}  // namespace bracket::test
