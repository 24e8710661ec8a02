// Whole-set evaluation of networks from host memory, in chunks of bounded size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bracket/device.h"
#include "bracket/network.h"
#include "host/core/host_values.h"

namespace bracket {

/// Outputs [rows, network.output_size()] for points x [rows, network.input_size()], inference mode. Waits.
std::vector<double> network_outputs(Context& context, const Network& network, const ParameterSet& parameters,
                                    std::span<const double> x, std::int64_t rows);

}  // namespace bracket
