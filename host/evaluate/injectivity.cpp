#include "host/evaluate/injectivity.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "bracket/error.h"
#include "host/core/host_values.h"
#include "host/core/text.h"
#include "host/evaluate/images/jacobian_spectrum.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// Of singular values by QR and one-sided Jacobi, as a share of the largest: 10 n^2 roundings, n = 10,000.
constexpr double kRounding = 1e-7;
constexpr std::int64_t kLargestSide = 4096;  // of a matrix whose singular values are computed
/// Largest slope of silu, x = 2.3994 (sigma + x sigma (1 - sigma) = 1.09984), rounded up.
constexpr double kSiluSlope = 1.0999;

/// m and L of |f(x) - f(x')| between m |x - x'| and L |x - x'|.
struct Stretch {
  double least = 0;
  double most = kInfinity;  ///< infinity: no bound is known
};

/// Row-major.
struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;
  double& at(std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * cols + j)]; }
  double at(std::int64_t i, std::int64_t j) const { return values[static_cast<std::size_t>(i * cols + j)]; }
};

Matrix transposed(const Matrix& a) {
  Matrix t{a.cols, a.rows, std::vector<double>(a.values.size())};
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t j = 0; j < a.cols; ++j) t.at(j, i) = a.at(i, j);
  return t;
}

double frobenius_norm(const Matrix& a) {
  double sum = 0;
  for (const double value : a.values) sum += value * value;
  return std::sqrt(sum) * (1 + kRounding);
}

class Certifier {
 public:
  Certifier(Context& context, const Network& network, const ParameterSet& parameters)
      : context_(context),
        network_(network),
        values_(to_host(context.ops(), parameters.values)),
        buffers_(to_host(context.ops(), parameters.buffers)) {}

  LayerCertificate operator()(const LayerSpec& layer, const std::string& path) {
    LayerCertificate c = std::visit([&](const auto& spec) { return certificate(spec, path + "."); }, layer);
    if (finite(path + ".")) return c;
    return {{}, c.type, false, {}, {}, "a parameter is not finite"};
  }

 private:
  // What a file would hold under this name, in the file's order.
  std::vector<double> tensor(const std::string& name) const {
    for (const ParameterInfo& info : network_.parameters()) {
      if (info.name != name) continue;
      const std::vector<double>& block = info.buffer ? buffers_ : values_;
      std::vector<double> values(static_cast<std::size_t>(info.size()));
      for (std::int64_t e = 0; e < info.size(); ++e) {
        const std::int64_t at = info.order.same() ? e : info.order.memory_element(e);
        values[static_cast<std::size_t>(e)] = block[static_cast<std::size_t>(info.offset + at)];
      }
      return values;
    }
    return {};
  }

  // Of everything whose name begins so.
  bool finite(const std::string& prefix) const {
    for (const ParameterInfo& info : network_.parameters()) {
      if (!info.name.starts_with(prefix)) continue;
      const auto first = (info.buffer ? buffers_ : values_).begin() + info.offset;
      if (!std::all_of(first, first + info.size(), [](double v) { return std::isfinite(v); })) return false;
    }
    return true;
  }

  // The weight as passes use it, a matrix [outputs, everything else]; `outputs` rows.
  Matrix used_weight(const std::string& prefix, bool spectral_norm, std::int64_t outputs) const {
    const std::string base = prefix + "parametrizations.weight.";
    Matrix weight{outputs, 0, tensor(spectral_norm ? base + "original" : prefix + "weight")};
    weight.cols = static_cast<std::int64_t>(weight.values.size()) / outputs;
    if (!spectral_norm) return weight;
    const std::vector<double> u = tensor(base + "0._u"), v = tensor(base + "0._v");
    double sigma = 0;
    for (std::int64_t i = 0; i < weight.rows; ++i)
      for (std::int64_t j = 0; j < weight.cols; ++j)
        sigma += u[static_cast<std::size_t>(i)] * weight.at(i, j) * v[static_cast<std::size_t>(j)];
    for (double& w : weight.values) w /= sigma;
    return weight;
  }

  // Singular values of the matrix as those of the Jacobian of a linear network.
  Stretch stretch(const Matrix& matrix) const {
    if (!std::all_of(matrix.values.begin(), matrix.values.end(), [](double w) { return std::isfinite(w); })) return {};
    const Matrix tall = matrix.rows >= matrix.cols ? matrix : transposed(matrix);
    if (tall.cols > kLargestSide) return {0, frobenius_norm(matrix)};
    LinearSpec linear{tall.rows};
    linear.bias = false;
    const Network network({tall.cols, {linear}}, DType::f64);
    Ops& ops = context_.ops();
    Arena arena(context_.pool(), network.value_elements() * dtype_bytes(DType::f64));
    const ParameterSet parameters{arena.allocate(DType::f64, {network.value_elements()}), {}};
    std::vector<double> values(static_cast<std::size_t>(network.value_elements()));
    std::copy(tall.values.begin(), tall.values.end(),
              values.begin() + static_cast<std::ptrdiff_t>(network.parameters().front().offset));
    to_device(ops, parameters.values, values);
    const std::vector<double> origin(static_cast<std::size_t>(tall.cols));
    JacobianSpectrum spectrum;
    try {
      spectrum = jacobian_spectrum(context_, network, parameters, origin, 1);
    } catch (const Diverged&) {  // products that overflow
      return {};
    }
    const double largest = spectrum.largest.front(), smallest = spectrum.smallest.front();
    const double least = matrix.rows >= matrix.cols ? smallest - kRounding * largest : 0;
    return {std::max(least, 0.0), largest * (1 + kRounding)};
  }

  Stretch of_matrix(const std::string& prefix) const {
    Matrix matrix{0, 0, tensor(prefix + "matrix")};
    matrix.rows = matrix.cols = std::llround(std::sqrt(static_cast<double>(matrix.values.size())));
    return stretch(matrix);
  }

  static Stretch of_factors(const std::vector<double>& factors) {
    Stretch s{kInfinity, 0};
    for (const double f : factors) {
      if (!std::isfinite(f)) return {};
      s.least = std::min(s.least, std::abs(f));
      s.most = std::max(s.most, std::abs(f));
    }
    return s;
  }

  // ---- m and L of a layer; {0, infinity} where nothing is known ----------------------------------------------------

  Stretch stretch_of(const LinearSpec& spec, const std::string& prefix) const {
    return stretch(used_weight(prefix, spec.spectral_norm, spec.features));
  }
  Stretch stretch_of(const AffineSpec& spec, const std::string&) const { return of_factors(spec.scale); }
  Stretch stretch_of(const BatchNormSpec& spec, const std::string& prefix) const {
    std::vector<double> factors = tensor(prefix + "weight");
    const std::vector<double> variance = tensor(prefix + "running_var");
    for (std::size_t i = 0; i < factors.size(); ++i) factors[i] /= std::sqrt(variance[i] + spec.epsilon);
    return of_factors(factors);
  }
  Stretch stretch_of(const ActivationSpec& spec, const std::string& prefix) const {
    switch (spec.function) {
      case Activation::identity:
        return {1, 1};
      case Activation::relu:
      case Activation::tanh:
      case Activation::softplus:
        return {0, 1};
      case Activation::sigmoid:
        return {0, 0.25};
      case Activation::silu:
        return {0, kSiluSlope};
      case Activation::leaky_relu:
      case Activation::prelu: {
        double slope = spec.negative_slope;
        if (spec.function == Activation::prelu) slope = tensor(prefix + "weight").front();
        // A fold where the slope is not positive, whatever its size.
        return std::isfinite(slope) ? Stretch{std::clamp(slope, 0.0, 1.0), std::max(1.0, std::abs(slope))} : Stretch{};
      }
    }
    return {};
  }
  // The sum over taps of the norms of their matrices [channels, inputs]; rank is another matter.
  Stretch stretch_of(const Conv2dSpec& spec, const std::string& prefix) const {
    const Matrix weight = used_weight(prefix, spec.spectral_norm, spec.channels);
    const std::int64_t taps = spec.kernel * spec.kernel, inputs = weight.cols / taps;
    double sum = 0;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      Matrix of_tap{spec.channels, inputs, std::vector<double>(static_cast<std::size_t>(spec.channels * inputs))};
      for (std::int64_t i = 0; i < spec.channels; ++i)
        for (std::int64_t j = 0; j < inputs; ++j) of_tap.at(i, j) = weight.at(i, j * taps + tap);
      sum += stretch(of_tap).most;
    }
    return {0, sum};
  }
  Stretch stretch_of(const ResidualSpec& spec, const std::string& prefix) const {
    const Stretch body = stretch_of(spec.body, prefix + "body."), skip = stretch_of(spec.skip, prefix + "skip.");
    return {std::max(skip.least - body.most, 0.0), skip.most + body.most};
  }
  Stretch stretch_of(const AveragePoolSpec& spec, const std::string&) const {
    return {0, 1 / static_cast<double>(spec.window)};
  }
  Stretch stretch_of(const SumPoolSpec& spec, const std::string&) const {
    return {0, static_cast<double>(spec.window)};
  }
  Stretch stretch_of(const MaxPoolSpec&, const std::string&) const { return {0, 1}; }
  Stretch stretch_of(const UpsampleSpec& spec, const std::string&) const {
    return {static_cast<double>(spec.factor), static_cast<double>(spec.factor)};
  }
  Stretch stretch_of(const PermutationSpec&, const std::string& prefix) const { return of_matrix(prefix); }
  Stretch stretch_of(const RotationSpec&, const std::string& prefix) const { return of_matrix(prefix); }
  Stretch stretch_of(const FlattenSpec&, const std::string&) const { return {1, 1}; }
  Stretch stretch_of(const UnflattenSpec&, const std::string&) const { return {1, 1}; }
  template <class SpecT>
  Stretch stretch_of(const SpecT&, const std::string&) const {
    return {};
  }

  Stretch stretch_of(const std::vector<LayerSpec>& chain, const std::string& prefix) const {
    Stretch product{1, 1};
    for (std::size_t i = 0; i < chain.size(); ++i) {
      const Stretch layer =
          std::visit([&](const auto& spec) { return stretch_of(spec, prefix + std::to_string(i) + "."); }, chain[i]);
      product = {product.least * layer.least, product.most * layer.most};
    }
    return product;
  }

  // ---- certificates ------------------------------------------------------------------------------------------------

  static LayerCertificate of_rank(const char* type, const Stretch& s) {
    LayerCertificate c;
    c.type = type;
    c.injective = s.least > 0;
    if (std::isfinite(s.most) && s.most > 0) c.margin = s.least / s.most;
    c.reason = c.injective ? "full rank" : "not of full column rank";
    return c;
  }
  LayerCertificate certificate(const LinearSpec& spec, const std::string& prefix) const {
    return of_rank("linear", stretch_of(spec, prefix));
  }
  LayerCertificate certificate(const AffineSpec& spec, const std::string& prefix) const {
    return of_rank("affine", stretch_of(spec, prefix));
  }
  LayerCertificate certificate(const BatchNormSpec& spec, const std::string& prefix) const {
    return of_rank("batch_norm", stretch_of(spec, prefix));
  }
  LayerCertificate certificate(const ActivationSpec& spec, const std::string& prefix) const {
    const double least = stretch_of(spec, prefix).least;
    const bool strict = spec.function == Activation::tanh || spec.function == Activation::sigmoid ||
                        spec.function == Activation::softplus || least > 0;
    return {{}, "activation", strict, least, {}, strict ? "strictly monotone" : "not strictly monotone"};
  }
  LayerCertificate certificate(const MonotoneCouplingSpec&, const std::string&) const {
    return {{}, "monotone_coupling", true, {}, {}, "strictly increasing by construction"};
  }
  LayerCertificate certificate(const RationalQuadraticCouplingSpec& spec, const std::string&) const {
    // s^2 min(s, e) / max(s, 1 / e)^2 (formula/rational_quadratic.h), at its least for s = r or s > 1 / e.
    const double r = spec.min_height, e = spec.min_derivative, least = std::min(r * r * std::min(r, e) * e * e, e);
    return {{}, "rational_quadratic_coupling", true, least, {}, "strictly increasing by construction"};
  }
  LayerCertificate certificate(const PermutationSpec& spec, const std::string& prefix) const {
    return of_rank("permutation", stretch_of(spec, prefix));
  }
  LayerCertificate certificate(const RotationSpec& spec, const std::string& prefix) const {
    return of_rank("rotation", stretch_of(spec, prefix));
  }
  LayerCertificate certificate(const FourierFeaturesSpec&, const std::string&) const {
    return {{}, "fourier_features", true, 1, {}, "its input is part of its output"};
  }
  LayerCertificate certificate(const ResidualSpec& spec, const std::string& prefix) const {
    const double body = stretch_of(spec.body, prefix + "body.").most;
    const double skip = stretch_of(spec.skip, prefix + "skip.").least;
    LayerCertificate c;
    c.type = "residual";
    c.injective = body < skip;
    if (!std::isfinite(body)) {
      c.reason = "no bound of its body's Lipschitz constant";
      return c;
    }
    c.lipschitz = body;
    c.margin = skip - body;
    c.reason = "Lipschitz constant of the body at most " + rounded_number(body, 3) + ", the skip path stretches by " +
               rounded_number(skip, 3) + " at least";
    return c;
  }
  LayerCertificate certificate(const UpsampleSpec&, const std::string&) const { return as_it_is("upsample"); }
  LayerCertificate certificate(const FlattenSpec&, const std::string&) const { return as_it_is("flatten"); }
  LayerCertificate certificate(const UnflattenSpec&, const std::string&) const { return as_it_is("unflatten"); }
  LayerCertificate certificate(const ConfinementSpec&, const std::string&) const { return without("confinement"); }
  LayerCertificate certificate(const Conv2dSpec&, const std::string&) const { return without("conv2d"); }
  LayerCertificate certificate(const ConvTranspose2dSpec&, const std::string&) const {
    return without("conv_transpose2d");
  }
  LayerCertificate certificate(const AveragePoolSpec& s, const std::string&) const {
    return pool("average_pool", s.window);
  }
  LayerCertificate certificate(const SumPoolSpec& s, const std::string&) const { return pool("sum_pool", s.window); }
  LayerCertificate certificate(const MaxPoolSpec& s, const std::string&) const { return pool("max_pool", s.window); }

  static LayerCertificate as_it_is(const char* type) { return {{}, type, true, 1, {}, "no value is lost"}; }
  static LayerCertificate without(const char* type) { return {{}, type, false, {}, {}, "no proof for this type"}; }
  static LayerCertificate pool(const char* type, std::int64_t window) {
    return window == 1 ? as_it_is(type) : LayerCertificate{{}, type, false, {}, {}, "several values become one"};
  }

  Context& context_;
  const Network& network_;
  std::vector<double> values_, buffers_;
};

}  // namespace

std::string InjectivityCertificate::summary() const {
  if (certified) {
    const LayerCertificate* weakest = nullptr;
    for (const LayerCertificate& layer : layers)
      if (layer.lipschitz && (weakest == nullptr || layer.margin < weakest->margin)) weakest = &layer;
    if (weakest == nullptr) return "every layer is";
    return weakest->layer + ": " + weakest->reason;
  }
  for (const LayerCertificate& layer : layers)
    if (!layer.injective) return layer.layer + " (" + layer.type + "): " + layer.reason;
  return "";
}

InjectivityCertificate certify_injective(Context& context, const Network& generator, const ParameterSet& parameters) {
  Certifier certifier(context, generator, parameters);
  InjectivityCertificate result{.certified = true, .layers = {}};
  const std::vector<LayerSpec>& layers = generator.spec().layers;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string path = "layers." + std::to_string(i);
    LayerCertificate layer = certifier(layers[i], path);
    layer.layer = path;
    result.certified = result.certified && layer.injective;
    result.layers.push_back(std::move(layer));
  }
  return result;
}

}  // namespace bracket
