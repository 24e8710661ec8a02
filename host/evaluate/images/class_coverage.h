// How generated images spread over the classes of a balanced data set, such as the 1000 of Stacked MNIST.
#pragma once

#include <cstdint>
#include <span>

namespace bracket {

struct ClassCoverage {
  std::int64_t modes = 0;  ///< classes with at least one sample
  double kl = 0;           ///< sum_c p_c log(p_c classes), p_c the share of the samples in class c; nats
};

/// Throws InvalidArgument for no labels, no classes or a label outside [0, classes).
ClassCoverage class_coverage(std::span<const std::int64_t> labels, std::int64_t classes);

}  // namespace bracket
