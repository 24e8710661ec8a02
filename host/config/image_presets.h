// The recipes of the published image experiments.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bracket/image_shape.h"
#include "bracket/trainer.h"

namespace bracket {

const std::vector<std::string>& image_preset_names();

/// `name` is one of the above. `images` is the size of the training set, from which a recipe that counts epochs knows
/// its steps; `width` as in ImageNetworkOptions. Throws InvalidArgument where the recipe's networks do not fit the
/// shape.
TrainerConfig make_image_preset(const std::string& name, const ImageShape& shape, std::int64_t images, double width);

}  // namespace bracket
