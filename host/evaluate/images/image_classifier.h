// A small convolutional classifier trained by this library, the eye behind figures on generated images.
//
// Conv 10 k5, max pool 2, ReLU, Conv 20 k5, max pool 2, ReLU, Linear 50, ReLU, Linear classes, on pixels from -1 to 1.
// Its features are the 50 values before the last layer. Figures made with it are not those of an Inception network.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "bracket/dataset.h"
#include "bracket/device.h"
#include "bracket/network.h"

namespace bracket {

/// Throws InvalidArgument unless height and width are multiples of 4 of at least 16 and there are 2 to 256 classes.
NetworkSpec classifier_network(const ImageShape& image, std::int64_t classes);

struct ClassifierTraining {
  std::int64_t epochs = 8;
  std::int64_t batch_size = 100;
  double lr = 3e-3;                ///< of Adam, falling to nothing along a cosine
  std::int64_t largest_shift = 2;  ///< images are moved by up to so many pixels each way, edges repeated
  std::uint64_t seed = 0;
};

/// What classify() makes of images.
struct Classified {
  std::vector<double> features;      ///< [rows, features]
  std::vector<std::int64_t> labels;  ///< the class of the largest logit
};

class ImageClassifier {
 public:
  /// Trains on a labelled image set; a function of data and options alone on a given device. `progress`, when given, is
  /// called after every epoch with its number and mean loss. Throws InvalidArgument for data without labels, options
  /// out of range or a shape or number of classes the network cannot take, Diverged.
  static ImageClassifier train(Context& context, const Dataset& data, const ClassifierTraining& options = {},
                               const std::function<void(std::int64_t epoch, double loss)>& progress = {});
  /// Reads what `save` wrote. Throws DataError when the file cannot be read, CheckpointError when it is damaged or no
  /// classifier.
  static ImageClassifier load(Context& context, const std::filesystem::path& path);
  /// A safetensors file with PyTorch's names, and shape and classes in its metadata.
  void save(const std::filesystem::path& path) const;

  const ImageShape& image() const noexcept { return *network_.spec().image; }
  std::int64_t classes() const noexcept { return network_.output_size(); }
  std::int64_t features() const noexcept { return trunk_.output_size(); }

  /// Of images [rows, image().size()] in the units of networks. Waits. Throws InvalidArgument for a size that
  /// disagrees.
  Classified classify(std::span<const double> images, std::int64_t rows) const;
  /// Share of a labelled set that is classified right. Throws InvalidArgument for another shape or no labels.
  double accuracy(const Dataset& data) const;

 private:
  ImageClassifier(Context& context, const NetworkSpec& spec);

  Context* context_;
  Network network_;
  Network trunk_;  ///< all layers but the last, on the same values
  Network head_;   ///< the last layer, on its part of the values
  Buffer memory_;
  ParameterSet parameters_;
  ParameterSet head_parameters_;
};

/// Images [first, first + count) of a set in the units of networks.
std::vector<double> image_values(const Dataset& data, std::int64_t first, std::int64_t count);

}  // namespace bracket
