// The JSON of networks and training configurations. One list of fields per type serves reading and writing.
#include <array>
#include <cstddef>
#include <optional>
#include <utility>

#include "bracket/error.h"
#include "bracket/network.h"
#include "bracket/preset.h"
#include "host/config/json_reader.h"
#include "host/config/json_text.h"
#include "host/config/json_writer.h"
#include "host/config/number_range.h"
#include "host/core/text.h"

namespace bracket {
namespace {

// In the order of the enumerations.
constexpr std::array kActivations = {"identity", "relu", "leaky_relu", "prelu", "tanh", "sigmoid", "silu", "softplus"};
constexpr std::array kPenaltyKinds = {"bidirectional", "zero_gp"};
constexpr std::array kPenaltyRules = {"constant", "power", "controller"};
constexpr std::array kMathModes = {"context", "fp32", "tf32x3", "tf32", "bf16"};  // behind the word for none
// In the order of LayerSpec's alternatives.
constexpr std::array kLayerTypes = {"linear",
                                    "activation",
                                    "batch_norm",
                                    "affine",
                                    "fourier_features",
                                    "monotone_coupling",
                                    "confinement",
                                    "conv2d",
                                    "conv_transpose2d",
                                    "average_pool",
                                    "sum_pool",
                                    "max_pool",
                                    "upsample",
                                    "flatten",
                                    "unflatten",
                                    "residual",
                                    "rational_quadratic_coupling",
                                    "permutation",
                                    "rotation"};
static_assert(kLayerTypes.size() == std::variant_size_v<AnyLayerSpec>);

// A product of two such widths fits 64 bits.
constexpr double kLargestWidth = 2147483647;      // 2^31 - 1
constexpr double kLargestStep = 281474976710655;  // 2^48 - 1: what RandomKey::step holds
constexpr double kLargestTable = 281474976710655;
constexpr double kLargestKnots = 65536;  // each is three columns per active column
constexpr NumberRange kAnyNumber;
constexpr NumberRange kNotNegative = NumberRange::at_least(0);
constexpr NumberRange kPositive = NumberRange::above(0);
constexpr NumberRange kWidth = NumberRange::between(1, kLargestWidth);
constexpr NumberRange kPadding = NumberRange::between(0, kLargestWidth);
constexpr NumberRange kEnergySteps = NumberRange::between(1, 10000);  // of one step, which cannot be interrupted
constexpr NumberRange kIterations = NumberRange::between(1, 10000);
constexpr NumberRange kSteps = NumberRange::between(0, kLargestStep);
constexpr NumberRange kFraction = NumberRange::between(0, 1);
constexpr NumberRange kDecay = NumberRange::from_to_below(0, 1);

template <class ArchiveT>
void visit_fields(ArchiveT& archive, LinearSpec& spec) {
  archive.number("features", spec.features, kWidth, Presence::required);
  archive.flag("bias", spec.bias);
  archive.flag("spectral_norm", spec.spectral_norm);
  archive.number("weight_gain", spec.weight_gain, kNotNegative);
  archive.number("bias_bound", spec.bias_bound, kAnyNumber);
  archive.flag("identity_start", spec.identity_start);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, ActivationSpec& spec) {
  archive.word("function", spec.function, kActivations);
  archive.number("negative_slope", spec.negative_slope, kAnyNumber);
  archive.number("initial_slope", spec.initial_slope, kAnyNumber);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, BatchNormSpec& spec) {
  archive.number("momentum", spec.momentum, kFraction);
  archive.number("epsilon", spec.epsilon, kPositive);
  archive.number("deviation", spec.deviation, kNotNegative);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, AffineSpec& spec) {
  archive.numbers("scale", spec.scale, NumberRange::not_zero(), Presence::required);
  archive.numbers("shift", spec.shift, kAnyNumber, Presence::required);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, FourierFeaturesSpec& spec) {
  archive.number("frequencies", spec.frequencies, kWidth);
  archive.number("deviation", spec.deviation, kNotNegative);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, MonotoneCouplingSpec& spec) {
  archive.number("active_first", spec.active_first, NumberRange::between(0, kLargestWidth));
  archive.number("active_count", spec.active_count, kWidth);
  archive.number("knots", spec.knots, NumberRange::between(1, kLargestKnots));
  archive.numbers("hidden", spec.hidden, kWidth);
  archive.number("max_slope", spec.max_slope, kPositive);
  archive.number("max_height", spec.max_height, kPositive);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, RationalQuadraticCouplingSpec& spec) {
  archive.number("active_first", spec.active_first, NumberRange::between(0, kLargestWidth));
  archive.number("active_count", spec.active_count, kWidth);
  archive.number("bins", spec.bins, NumberRange::between(1, kLargestKnots));
  archive.numbers("hidden", spec.hidden, kWidth);
  archive.number("bound", spec.bound, kPositive);
  archive.number("min_width", spec.min_width, kPositive);
  archive.number("min_height", spec.min_height, kPositive);
  archive.number("min_derivative", spec.min_derivative, kPositive);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, PermutationSpec& spec) {
  archive.flag("random", spec.random);
  archive.number("seed", spec.seed);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, RotationSpec& spec) {
  archive.number("seed", spec.seed);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, ConfinementSpec& spec) {
  archive.number("input_layer", spec.input_layer, NumberRange::between(-1, kLargestWidth));
  archive.number("quadratic", spec.quadratic, kNotNegative);
  archive.number("wall", spec.wall, kNotNegative);
  archive.number("radius", spec.radius, kNotNegative);
}

template <class ArchiveT, class SpecT>
void visit_convolution(ArchiveT& archive, SpecT& spec) {
  archive.number("channels", spec.channels, kWidth, Presence::required);
  archive.number("kernel", spec.kernel, kWidth, Presence::required);
  archive.number("stride", spec.stride, kWidth);
  archive.number("padding", spec.padding, kPadding);
  archive.flag("bias", spec.bias);
  archive.flag("spectral_norm", spec.spectral_norm);
  archive.number("deviation", spec.deviation, kNotNegative);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, Conv2dSpec& spec) {
  visit_convolution(archive, spec);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, ConvTranspose2dSpec& spec) {
  visit_convolution(archive, spec);
  archive.number("output_padding", spec.output_padding, kPadding);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, AveragePoolSpec& spec) {
  archive.number("window", spec.window, kWidth, Presence::required);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, SumPoolSpec& spec) {
  archive.number("window", spec.window, kWidth, Presence::required);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, MaxPoolSpec& spec) {
  archive.number("window", spec.window, kWidth, Presence::required);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, UpsampleSpec& spec) {
  archive.number("factor", spec.factor, kWidth, Presence::required);
}

template <class ArchiveT>
void visit_fields(ArchiveT&, FlattenSpec&) {}

// An ImageShape or an UnflattenSpec.
template <class ArchiveT, class ShapeT>
void visit_shape(ArchiveT& archive, ShapeT& shape) {
  archive.number("channels", shape.channels, kWidth, Presence::required);
  archive.number("height", shape.height, kWidth, Presence::required);
  archive.number("width", shape.width, kWidth, Presence::required);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, UnflattenSpec& spec) {
  visit_shape(archive, spec);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, LayerSpec& layer);

template <class ArchiveT>
void visit_fields(ArchiveT& archive, ResidualSpec& spec) {
  const auto visit = [](auto& child, LayerSpec& layer) { visit_fields(child, layer); };
  archive.objects("body", spec.body, visit);
  archive.objects("skip", spec.skip, visit);
}

template <std::size_t... Index>
LayerSpec default_layer(std::size_t type, std::index_sequence<Index...>) {
  const std::array layers = {LayerSpec(std::in_place_index<Index>)...};
  return layers[type];
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, LayerSpec& layer) {
  std::size_t type = layer.index();
  archive.word("type", type, kLayerTypes, Presence::required);
  if (type != layer.index()) layer = default_layer(type, std::make_index_sequence<kLayerTypes.size()>());
  std::visit([&](auto& spec) { visit_fields(archive, spec); }, static_cast<AnyLayerSpec&>(layer));
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, NetworkSpec& spec) {
  archive.number("input_size", spec.input_size, kWidth, Presence::required);
  archive.optional_object("image", spec.image, [](auto& child, ImageShape& shape) { visit_shape(child, shape); });
  archive.objects("layers", spec.layers, [](auto& child, LayerSpec& layer) { visit_fields(child, layer); });
}

template <class ArchiveT>
void visit_math(ArchiveT& archive, const char* key, std::optional<MathMode>& mode) {
  std::size_t word = mode ? 1 + static_cast<std::size_t>(*mode) : 0;
  archive.word(key, word, kMathModes);
  mode.reset();
  if (word > 0) mode = static_cast<MathMode>(word - 1);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, PlayerConfig& player) {
  OptimizerConfig& optimizer = player.optimizer;
  archive.number("lr", optimizer.lr, kNotNegative);
  archive.number("beta1", optimizer.beta1, kDecay);
  archive.number("beta2", optimizer.beta2, kDecay);
  archive.number("epsilon", optimizer.epsilon, kPositive);
  archive.number("weight_decay", optimizer.weight_decay, kNotNegative);
  archive.number("clip_norm", optimizer.clip_norm, kNotNegative);
  visit_math(archive, "math", player.math.passes);
  visit_math(archive, "jacobian_math", player.math.jacobian);
  archive.object(
      "network", [&](auto& child) { visit_fields(child, player.network); }, Presence::required);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, PenaltyConfig& penalty) {
  archive.word("kind", penalty.kind, kPenaltyKinds);
  archive.word("rule", penalty.rule, kPenaltyRules);
  archive.number("weight", penalty.weight, kNotNegative);
  archive.number("threshold", penalty.threshold, kNotNegative);
  archive.number("offset", penalty.offset, kNotNegative);
  archive.number("exponent", penalty.exponent, kAnyNumber);
  archive.number("target", penalty.target, kPositive);
  archive.number("minimum", penalty.minimum, kPositive);
  archive.number("maximum", penalty.maximum, kPositive);
  archive.number("gain", penalty.gain, kNotNegative);
  archive.number("decay", penalty.decay, kDecay);
  archive.number("delay", penalty.delay, kSteps);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, ScheduleConfig& schedule) {
  archive.flag("cosine", schedule.cosine);
  archive.number("warmup_steps", schedule.warmup_steps, kSteps);
  archive.number("final_fraction", schedule.final_fraction, kFraction);
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, DataConfig& data) {
  archive.flag("flip", data.flip);
  archive.flag("dequantise", data.dequantise);
  archive.number("device_bytes", data.device_bytes, NumberRange::between(0, kLargestTable));
}

template <class ArchiveT>
void visit_fields(ArchiveT& archive, TrainerConfig& config) {
  const std::array estimators = {
      entropy_estimator_name(EntropyEstimator::exact), entropy_estimator_name(EntropyEstimator::min_singular),
      entropy_estimator_name(EntropyEstimator::lobpcg), entropy_estimator_name(EntropyEstimator::triangular)};
  const std::array precisions = {dtype_name(DType::f32), dtype_name(DType::f64)};
  archive.object(
      "energy", [&](auto& child) { visit_fields(child, config.energy); }, Presence::required);
  archive.object(
      "generator", [&](auto& child) { visit_fields(child, config.generator); }, Presence::required);
  archive.object("penalty", [&](auto& child) { visit_fields(child, config.penalty); });
  archive.object("schedule", [&](auto& child) { visit_fields(child, config.schedule); });
  archive.object("data", [&](auto& child) { visit_fields(child, config.data); });
  archive.object("entropy", [&](auto& child) {
    child.word("estimator", config.entropy.estimator, estimators);
    child.number("weight", config.entropy_weight, kNotNegative);
    child.number("iterations", config.entropy.iterations, kIterations);
    child.flag("warm_start", config.entropy.warm_start);
    child.number("chunk", config.entropy.chunk, NumberRange::between(0, kLargestWidth));
    child.flag("reuse", config.entropy_reuse);
  });
  archive.number("ema_decay", config.ema_decay, kDecay);
  archive.number("batch_size", config.batch_size, kWidth);
  archive.number("energy_steps", config.energy_steps, kEnergySteps);
  archive.number("steps", config.total_steps, kSteps);
  archive.number("seed", config.seed);
  archive.word("precision", config.dtype, precisions);
}

// What one field alone cannot show.
void check(const TrainerConfig& config) {
  const PenaltyConfig& penalty = config.penalty;
  if (penalty.minimum > penalty.maximum) {
    throw InvalidArgument("'penalty.minimum' is " + format_number(penalty.minimum) +
                          ", above 'penalty.maximum' = " + format_number(penalty.maximum) + "; lower it");
  }
  if (penalty.rule == PenaltyConfig::Rule::controller && penalty.weight == 0) {
    throw InvalidArgument("'penalty.weight' is 0, which the controller can never leave; give it a positive start");
  }
  if (penalty.rule == PenaltyConfig::Rule::power && penalty.offset == 0 && penalty.exponent < 0) {
    throw InvalidArgument("'penalty.exponent' is " + format_number(penalty.exponent) +
                          " with 'penalty.offset' = 0, an infinite weight at step 0; give a positive offset");
  }
}

void check(const NetworkSpec&) {}

template <class ConfigT>
std::string text_of(ConfigT config) {
  check(config);
  JsonWriter writer{""};
  visit_fields(writer, config);
  return json_text(writer.object());
}

template <class ConfigT>
ConfigT parsed(const std::string& text) {
  const Json json = parse_json(text);
  JsonReader reader(json, "");
  ConfigT config;
  visit_fields(reader, config);
  reader.finish();
  check(config);
  return config;
}

}  // namespace

std::string to_json(const NetworkSpec& spec) { return text_of(spec); }
NetworkSpec network_spec_from_json(const std::string& text) { return parsed<NetworkSpec>(text); }

std::string to_json(const TrainerConfig& config) { return text_of(config); }
TrainerConfig trainer_config_from_json(const std::string& text) { return parsed<TrainerConfig>(text); }

}  // namespace bracket
