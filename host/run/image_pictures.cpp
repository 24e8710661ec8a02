#include "host/run/image_pictures.h"

#include <span>
#include <string>
#include <vector>

#include "bracket/error.h"
#include "host/evaluate/images/image_classifier.h"
#include "host/evaluate/images/nearest_images.h"
#include "host/evaluate/images/probe_images.h"
#include "host/network/layer.h"
#include "host/picture/plots.h"
#include "host/training/inference.h"

namespace bracket {
namespace {

constexpr std::uint64_t kNeighbourStep = 3, kPathStep = 4;  // of stream `evaluation`

void check(const Trainer& trainer, const ImageShape& shape, const ImagePictureOptions& options) {
  if (shape.channels != 1 && shape.channels != 3)
    throw InvalidArgument("images of " + std::to_string(shape.channels) +
                          " channels cannot be drawn, 1 (gray) and 3 (colour) can");
  if (shape.size() != trainer.generator_network().output_size())
    throw InvalidArgument("the generator makes rows of " + std::to_string(trainer.generator_network().output_size()) +
                          " values, the images have " + described(shape));
  if (options.rows < 1 || options.columns < 2)
    throw InvalidArgument("a picture of images needs at least 1 row and 2 columns, got " +
                          std::to_string(options.rows) + " and " + std::to_string(options.columns));
}

Image grid_picture(std::span<const double> values, const ImageShape& shape, const ImagePictureOptions& options) {
  std::vector<float> shown;
  for (const double value : values) shown.push_back(static_cast<float>(0.5 * (value + 1)));
  SampleGrid grid;
  grid.count = options.rows * options.columns;
  grid.height = shape.height;
  grid.width = shape.width;
  grid.channels = shape.channels;
  grid.values = shown;
  grid.columns = options.columns;
  return sample_grid(grid);
}

}  // namespace

Image neighbour_picture(Trainer& trainer, const Dataset& data, const ImagePictureOptions& options) {
  const ImageShape& shape = data.image();
  check(trainer, shape, options);
  const Network& generator = trainer.generator_network();
  const std::vector<double> z =
      normal_values({options.seed, RandomStream::evaluation, kNeighbourStep}, options.rows * generator.input_size());
  const std::vector<double> samples =
      network_outputs(trainer.context(), generator, trainer.generator_parameters(options.weights), z, options.rows);
  const std::int64_t neighbours = options.columns - 1;
  const std::vector<Neighbour> nearest = nearest_images(data, samples, options.rows, neighbours);
  std::vector<double> values;
  for (std::int64_t i = 0; i < options.rows; ++i) {
    const auto sample = samples.begin() + i * shape.size();
    values.insert(values.end(), sample, sample + shape.size());
    for (std::int64_t k = 0; k < neighbours; ++k) {
      const std::vector<double> image =
          image_values(data, nearest[static_cast<std::size_t>(i * neighbours + k)].row, 1);
      values.insert(values.end(), image.begin(), image.end());
    }
  }
  return grid_picture(values, shape, options);
}

Image interpolation_picture(Trainer& trainer, const ImageShape& shape, const ImagePictureOptions& options) {
  check(trainer, shape, options);
  const Network& generator = trainer.generator_network();
  const auto d = static_cast<std::size_t>(generator.input_size());
  const std::vector<double> ends =
      normal_values({options.seed, RandomStream::evaluation, kPathStep}, 2 * options.rows * generator.input_size());
  std::vector<double> z;
  for (std::size_t i = 0; i < static_cast<std::size_t>(options.rows); ++i) {
    const std::span<const double> pair = std::span(ends).subspan(2 * i * d, 2 * d);
    const std::vector<double> path = latent_path(pair.first(d), pair.last(d), options.columns);
    z.insert(z.end(), path.begin(), path.end());
  }
  return grid_picture(network_outputs(trainer.context(), generator, trainer.generator_parameters(options.weights), z,
                                      options.rows * options.columns),
                      shape, options);
}

}  // namespace bracket
