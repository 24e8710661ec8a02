// Training of the image classifier: mean cross-entropy, descended by Adam.
#pragma once

#include <functional>

#include "host/evaluate/images/image_classifier.h"

namespace bracket {

/// Trains from starting values of the seed and writes the averaged parameters into `values`.
void train_classifier(Context& context, const NetworkSpec& spec, const Dataset& data, const ClassifierTraining& options,
                      const Tensor& values, const std::function<void(std::int64_t epoch, double loss)>& progress);

}  // namespace bracket
