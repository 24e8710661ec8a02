// Pictures of a trainer's state, for a run in training and for a finished one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "bracket/dataset.h"
#include "bracket/run.h"
#include "bracket/trainer.h"
#include "host/picture/image.h"
#include "host/picture/plots.h"

namespace bracket {

struct DensityPictureOptions {
  std::int64_t points = 4000;  ///< of the data and of the samples
  std::int64_t cells = 400;    ///< of the density per side
  Weights weights = Weights::average;
  double log_z_tolerance = 1e-2;  ///< nats; shown with two decimals
};

/// Data, samples, density and log-density of a 2-D run side by side.
Image density_picture(Trainer& trainer, const Dataset& data, const DensityPictureOptions& options = {});

/// The lower bound of every step that `metrics_file` (metrics.jsonl) has logged, with its running mean; the title says
/// where the generator's layers do not make it one. Throws InvalidArgument when no step has a finite one.
Image lower_bound_picture(const std::filesystem::path& metrics_file, const Network& generator);
/// The chart of that picture, for others to add to; its y_range is set.
LineChart lower_bound_chart(const std::filesystem::path& metrics_file);

/// RUN/`kind`/step_XXXXXXXX.png, where a run keeps its picture of a step; absent when none could be drawn.
std::filesystem::path picture_path(const std::filesystem::path& run_folder, const char* kind, std::int64_t step);

/// The images that the rows of a run are, where they can be drawn: gray or colour ones; of rows of numbers, square gray
/// ones of at least 4 x 4 pixels.
std::optional<ImageShape> drawable_image(const RunDescription& run);

/// Rows as a grid of images, `minimum` black and `maximum` white.
Image sample_picture(std::span<const double> values, std::int64_t rows, const ImageShape& shape, double minimum,
                     double maximum);

/// Rows of two values as points. The box is that of the points.
Image scatter_picture(std::span<const double> values, std::int64_t rows, const std::string& title);

}  // namespace bracket
