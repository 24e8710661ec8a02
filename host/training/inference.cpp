#include "host/training/inference.h"

#include <algorithm>

#include "bracket/error.h"
#include "host/training/row_chunks.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kChunkRows = 4096;       // activations of a 64-wide network stay in a few MB ...
constexpr std::int64_t kChunkValues = 1 << 26;  // ... and those of an image network in 256 MB of floats

void require_points(std::span<const double> x, std::int64_t rows, std::int64_t cols, const char* what) {
  if (rows < 0)
    throw InvalidArgument(std::string(what) + ": rows is " + std::to_string(rows) + ", must not be negative");
  if (rows > std::int64_t{1} << 40 || static_cast<std::int64_t>(x.size()) != rows * cols)
    throw InvalidArgument(std::string(what) + ": expected " + std::to_string(rows) + " x " + std::to_string(cols) +
                          " values, got " + std::to_string(x.size()));
}

}  // namespace

std::vector<double> network_outputs(Context& context, const Network& network, const ParameterSet& parameters,
                                    std::span<const double> x, std::int64_t rows) {
  const std::int64_t cols = network.input_size();
  require_points(x, rows, cols, "network_outputs");
  std::vector<double> out;
  out.reserve(static_cast<std::size_t>(rows * network.output_size()));
  const std::int64_t chunk = std::clamp<std::int64_t>(kChunkValues / network.values_per_row(), 1, kChunkRows);
  for_row_chunks(context, rows, chunk, [&](Ops& ops, Arena& arena, std::int64_t first, std::int64_t count) {
    const Tensor input = arena.allocate(network.dtype(), {count, cols});
    to_device(ops, input, x.subspan(static_cast<std::size_t>(first * cols), static_cast<std::size_t>(count * cols)));
    const Tensor output = arena.allocate(network.dtype(), {count, network.output_size()});
    network.evaluate(ops, arena, output, parameters, input, PassMode::inference);
    append_to_host(out, ops, output);
  });
  return out;
}

}  // namespace bracket
