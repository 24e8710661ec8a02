#include "host/evaluate/images/image_classifier.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/evaluate/images/classifier_training.h"
#include "host/files/atomic_file.h"
#include "host/files/in_quotes.h"
#include "host/files/safetensors.h"
#include "host/network/file_order.h"
#include "host/network/layer.h"
#include "host/training/inference.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr std::int64_t kFeatures = 50;
constexpr std::int64_t kMostClasses = 256;  // labels are bytes
constexpr std::int64_t kChunkRows = 500;
constexpr DType kDType = DType::f32;
constexpr const char* kFormat = "bracket-image-classifier-1";

NetworkSpec without_last_layer(NetworkSpec spec) {
  spec.layers.pop_back();
  return spec;
}

NetworkSpec last_layer(const NetworkSpec& spec) {
  NetworkSpec head;
  head.input_size = kFeatures;
  head.layers = {spec.layers.back()};
  return head;
}

// Where the values of the last layer start in the flat block.
std::int64_t head_offset(const Network& network) {
  const std::string prefix = "layers." + std::to_string(network.spec().layers.size() - 1) + ".";
  std::int64_t offset = network.value_elements();
  for (const ParameterInfo& info : network.parameters())
    if (info.name.starts_with(prefix)) offset = std::min(offset, info.offset);
  return offset;
}

std::int64_t metadata_number(const SafetensorsFile& file, const std::string& key, const std::string& name) {
  const auto found = file.metadata.find(key);
  std::int64_t value = 0;
  if (found != file.metadata.end()) {
    const char* end = found->second.data() + found->second.size();
    const auto [stop, error] = std::from_chars(found->second.data(), end, value);
    if (error == std::errc() && stop == end && value > 0 && value <= (std::int64_t{1} << 20)) return value;
  }
  throw CheckpointError(name + " is no image classifier: its metadata has no sensible '" + key +
                        "'; make one with 'bracket classifier'");
}

void require_labels(const Dataset& data) {
  if (!data.is_images() || data.labels().empty())
    throw InvalidArgument("a classifier needs labelled images; " + text_in_quotes(data.name()) + " has " +
                          (data.is_images() ? "no labels" : "no images"));
}

}  // namespace

NetworkSpec classifier_network(const ImageShape& image, std::int64_t classes) {
  for (const std::int64_t side : {image.height, image.width})
    if (side < 16 || side % 4 != 0)
      throw InvalidArgument("the classifier takes images whose sides are multiples of 4 of at least 16, got " +
                            std::to_string(image.height) + " x " + std::to_string(image.width));
  if (classes < 2 || classes > kMostClasses)
    throw InvalidArgument("the classifier tells 2 to " + std::to_string(kMostClasses) + " classes apart, got " +
                          std::to_string(classes));
  const ActivationSpec relu{.function = Activation::relu};
  NetworkSpec spec;
  spec.image = image;
  spec.input_size = image.size();
  spec.layers = {Conv2dSpec{.channels = 10, .kernel = 5},
                 MaxPoolSpec{.window = 2},
                 relu,
                 Conv2dSpec{.channels = 20, .kernel = 5},
                 MaxPoolSpec{.window = 2},
                 relu,
                 FlattenSpec{},
                 LinearSpec{.features = kFeatures},
                 relu,
                 LinearSpec{.features = classes}};
  return spec;
}

ImageClassifier::ImageClassifier(Context& context, const NetworkSpec& spec)
    : context_(&context),
      network_(spec, kDType),
      trunk_(without_last_layer(spec), kDType),
      head_(last_layer(spec), kDType),
      memory_(context.pool().allocate(network_.value_elements() * dtype_bytes(kDType), "classifier")) {
  parameters_.values = Tensor(memory_.data(), kDType, {network_.value_elements()});
  parameters_.buffers = Tensor(nullptr, kDType, {0});
  const std::int64_t offset = head_offset(network_);
  head_parameters_ = {parameters_.values.slice_rows(offset, network_.value_elements() - offset), parameters_.buffers};
  context.ops().fill(parameters_.values, 0);
}

ImageClassifier ImageClassifier::train(Context& context, const Dataset& data, const ClassifierTraining& options,
                                       const std::function<void(std::int64_t, double)>& progress) {
  require_labels(data);
  if (options.epochs < 1 || options.batch_size < 1 || options.batch_size > data.rows())
    throw InvalidArgument("a classifier trains for at least 1 epoch in batches of 1 to all " +
                          std::to_string(data.rows()) + " images, got " + std::to_string(options.epochs) + " and " +
                          std::to_string(options.batch_size));
  if (!(options.lr > 0) || !std::isfinite(options.lr) || options.largest_shift < 0 || options.largest_shift > 1024)
    throw InvalidArgument("a classifier needs a positive learning rate and shifts of 0 to 1024 pixels, got " +
                          format_number(options.lr) + " and " + std::to_string(options.largest_shift));
  const std::int64_t classes = std::int64_t{1} + *std::max_element(data.labels().begin(), data.labels().end());
  ImageClassifier classifier(context, classifier_network(data.image(), classes));
  train_classifier(context, classifier.network_.spec(), data, options, classifier.parameters_.values, progress);
  return classifier;
}

ImageClassifier ImageClassifier::load(Context& context, const std::filesystem::path& path) {
  SafetensorsFile file = read_safetensors(path);
  const std::string name = path_in_quotes(path);
  if (const auto format = file.metadata.find("bracket"); format == file.metadata.end() || format->second != kFormat)
    throw CheckpointError(name + " is no image classifier of this version; make one with 'bracket classifier'");
  const ImageShape image{metadata_number(file, "channels", name), metadata_number(file, "height", name),
                         metadata_number(file, "width", name)};
  NetworkSpec spec;
  try {
    spec = classifier_network(image, metadata_number(file, "classes", name));
  } catch (const InvalidArgument& error) {
    throw CheckpointError(name + ": " + error.what());
  }
  ImageClassifier classifier(context, spec);
  Ops& ops = context.ops();
  std::size_t placed = 0;
  for (const ParameterInfo& info : classifier.network_.parameters()) {
    const auto stored = std::find_if(file.tensors.begin(), file.tensors.end(),
                                     [&](const StoredTensor& tensor) { return tensor.name == info.name; });
    if (stored == file.tensors.end() || stored->type != StoredType::f32 || stored->shape != info.shape)
      throw CheckpointError(name + ": tensor '" + info.name + "' is missing or of another shape or type");
    const std::vector<std::byte> bytes = in_memory_order(stored->bytes, info.order, dtype_bytes(kDType));
    ops.upload(classifier.parameters_.values.slice_rows(info.offset, info.size()), bytes.data());
    ++placed;
  }
  if (placed != file.tensors.size())
    throw CheckpointError(name + " holds " + std::to_string(file.tensors.size()) + " tensors, the classifier has " +
                          std::to_string(placed));
  return classifier;
}

void ImageClassifier::save(const std::filesystem::path& path) const {
  SafetensorsFile file;
  file.metadata = {{"format", "pt"},
                   {"bracket", kFormat},
                   {"channels", std::to_string(image().channels)},
                   {"height", std::to_string(image().height)},
                   {"width", std::to_string(image().width)},
                   {"classes", std::to_string(classes())}};
  for (const ParameterInfo& info : network_.parameters()) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(info.size() * dtype_bytes(kDType)));
    context_->ops().download(bytes.data(), parameters_.values.slice_rows(info.offset, info.size()));
    file.tensors.push_back(
        {info.name, StoredType::f32, info.shape, in_file_order(bytes, info.order, dtype_bytes(kDType))});
  }
  write_file_atomically(path, serialize_safetensors(file));
}

Classified ImageClassifier::classify(std::span<const double> images, std::int64_t rows) const {
  Classified result;
  result.features = network_outputs(*context_, trunk_, parameters_, images, rows);
  const std::vector<double> logits = network_outputs(*context_, head_, head_parameters_, result.features, rows);
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto row = logits.begin() + i * classes();
    result.labels.push_back(std::max_element(row, row + classes()) - row);
  }
  return result;
}

double ImageClassifier::accuracy(const Dataset& data) const {
  require_labels(data);
  if (data.image() != image())
    throw InvalidArgument("the classifier takes " + described(image()) + ", " + text_in_quotes(data.name()) + " has " +
                          described(data.image()));
  std::int64_t right = 0;
  for (std::int64_t first = 0; first < data.rows(); first += kChunkRows) {
    const std::int64_t count = std::min(kChunkRows, data.rows() - first);
    const std::vector<std::int64_t> labels = classify(image_values(data, first, count), count).labels;
    for (std::int64_t i = 0; i < count; ++i)
      right += labels[static_cast<std::size_t>(i)] == data.labels()[static_cast<std::size_t>(first + i)] ? 1 : 0;
  }
  return static_cast<double>(right) / static_cast<double>(data.rows());
}

std::vector<double> image_values(const Dataset& data, std::int64_t first, std::int64_t count) {
  const auto pixels = data.pixels().subspan(static_cast<std::size_t>(first * data.cols()),
                                            static_cast<std::size_t>(count * data.cols()));
  std::vector<double> values(pixels.size());
  std::transform(pixels.begin(), pixels.end(), values.begin(),
                 [](std::uint8_t pixel) { return kPixelScale * pixel + kPixelShift; });
  return values;
}

}  // namespace bracket
