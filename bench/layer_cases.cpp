// Layers other than dense ones, on the stacked rows of the 2-D presets.
#include <cmath>

#include "bench/op_case.h"

namespace bracket::bench {
namespace {

constexpr Rows kToyEnergy{.primal = 600, .first = 400, .count = 200, .tangents = 1};
constexpr Rows kToyGenerator{.primal = 200, .first = 0, .count = 200, .tangents = 2};
constexpr Rows kCalibratedEnergy{.primal = 256, .first = 128, .count = 128, .tangents = 1};
constexpr Rows kCalibratedGenerator{.primal = 128, .first = 0, .count = 128, .tangents = 2};

constexpr std::int64_t kToyWidth = 100;
constexpr std::int64_t kFrequencies = 32;
constexpr Staircase kStaircase{.active_first = 0, .active_count = 1, .knots = 12, .max_slope = 3, .max_height = 2};
/// A radius inside the unit normal inputs, so that the wall is at work on a third of the rows.
constexpr Confinement kConfinement{.quadratic = 1, .wall = 25, .radius = 1.5};

std::int64_t all_rows(const Rows& rows) { return rows.primal + rows.tangent_rows(); }

std::string row_text(const Rows& rows, std::int64_t cols) {
  return std::to_string(all_rows(rows)) + "x" + std::to_string(cols);
}

double bytes_of(const Rows& rows, std::int64_t cols, int passes) {
  return static_cast<double>(all_rows(rows) * cols * dtype_bytes(DType::f32) * passes);
}

std::vector<Output> both(const Stacked& y) { return {{y.primal, {}}, {y.tangent, {}}}; }

/// What arguments of sines (up to 40, rounded twice) and sigmoids as steep as the staircase's (height 2, slope e^4 / 4,
/// inputs up to 4) make of a rounding error is about 100 units, where product_gate allows 50 for these rows.
constexpr double kSteep = 3;

/// A sum over the rows is the longest that a layer has.
void add(std::vector<BenchDevice>& devices, const std::string& name, double bytes, std::int64_t rows,
         std::function<Work(Operands&)> make, double amplification = 1) {
  OpCase op{name, DType::f32, 0, bytes, std::move(make)};
  op.depth = rows;
  op.amplification = amplification;
  register_case(op, devices);
}

void register_activation(std::vector<BenchDevice>& devices, const char* name, Activation function, const Rows& rows,
                         std::int64_t cols) {
  const ActivationKind kind{function, 0.01};
  const bool learnt = function == Activation::prelu;
  const auto slope_of = [learnt](Operands& operands) { return learnt ? operands.normal({1}, 0, 0.25) : Tensor(); };
  const std::string shape = std::string("/") + name + "_" + row_text(rows, cols);
  add(devices, "bias_activation_forward" + shape, bytes_of(rows, cols, 2), all_rows(rows),
      [=](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(rows, cols), y = operands.result_rows(rows, cols);
        const Tensor bias = operands.normal({cols}), slope = slope_of(operands);
        return {[=](Ops& ops) { ops.bias_activation_forward(y, x, bias, slope, kind, rows); }, both(y)};
      });
  add(devices, "bias_activation_reverse" + shape, bytes_of(rows, cols, 3), all_rows(rows),
      [=](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(rows, cols), grad_y = operands.normal_rows(rows, cols);
        const Tensor bias = operands.normal({cols}), slope = slope_of(operands);
        const Stacked grad_x = operands.result_rows(rows, cols);
        const Tensor grad_bias = operands.result({cols}), grad_slope = learnt ? operands.result({1}) : Tensor();
        std::vector<Output> outputs = both(grad_x);
        outputs.push_back({grad_bias, {}});
        if (learnt) outputs.push_back({grad_slope, {}});
        return {[=](Ops& ops) {
                  ops.bias_activation_reverse(grad_x, grad_bias, grad_slope, grad_y, x, bias, slope, kind, rows,
                                              Update::overwrite);
                },
                outputs};
      });
}

constexpr double kMomentum = 0.1;
constexpr double kEpsilon = 1e-5;

void register_batch_norm(std::vector<BenchDevice>& devices) {
  constexpr std::int64_t n = 200, c = kToyWidth;
  constexpr Rows train{.primal = n};
  const std::string shape = "/" + row_text(train, c);
  add(devices, "batch_norm_train_forward" + shape, bytes_of(train, c, 2), all_rows(train),
      [](Operands& operands) -> Work {
        const Tensor x = operands.normal({n, c}), gamma = operands.normal({c}), beta = operands.normal({c});
        const Tensor running_mean = operands.normal({c}), running_variance = operands.normal({c}, 0.1, 1);
        const Tensor y = operands.result({n, c}), mean = operands.result({c}), inv_std = operands.result({c});
        return {[=](Ops& ops) {
                  ops.batch_norm_train_forward(y, mean, inv_std, running_mean, running_variance, x, gamma, beta,
                                               kMomentum, kEpsilon);
                },
                {{y, {}}, {mean, {}}, {inv_std, {}}, {running_mean, {}}, {running_variance, {}}}};
      });
  add(devices, "batch_norm_train_reverse" + shape, bytes_of(train, c, 3), all_rows(train),
      [](Operands& operands) -> Work {
        const Tensor x = operands.normal({n, c}), gamma = operands.normal({c}), beta = operands.normal({c});
        const Tensor y = operands.result({n, c}), mean = operands.result({c}), inv_std = operands.result({c});
        operands.ops().batch_norm_train_forward(y, mean, inv_std, {}, {}, x, gamma, beta, kMomentum, kEpsilon);
        const Tensor grad_y = operands.normal({n, c}), grad_x = operands.result({n, c});
        const Tensor grad_gamma = operands.result({c}), grad_beta = operands.result({c});
        return {[=](Ops& ops) {
                  ops.batch_norm_train_reverse(grad_x, grad_gamma, grad_beta, grad_y, x, gamma, mean, inv_std,
                                               Update::overwrite);
                },
                {{grad_x, {}}, {grad_gamma, {}}, {grad_beta, {}}}};
      });
  const Rows rows = kToyGenerator;
  add(devices, "batch_norm_infer_forward/" + row_text(rows, c), bytes_of(rows, c, 2), all_rows(rows),
      [rows](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(rows, c), y = operands.result_rows(rows, c);
        const Tensor gamma = operands.normal({c}), beta = operands.normal({c});
        const Tensor mean = operands.normal({c}), variance = operands.normal({c}, 0.1, 1);
        return {[=](Ops& ops) { ops.batch_norm_infer_forward(y, x, gamma, beta, mean, variance, kEpsilon, rows); },
                both(y)};
      });
  add(devices, "batch_norm_infer_reverse/" + row_text(rows, c), bytes_of(rows, c, 3), all_rows(rows),
      [rows](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(rows, c), grad_y = operands.normal_rows(rows, c);
        const Stacked grad_x = operands.result_rows(rows, c);
        const Tensor gamma = operands.normal({c}), mean = operands.normal({c}), variance = operands.normal({c}, 0.1, 1);
        const Tensor grad_gamma = operands.result({c}), grad_beta = operands.result({c});
        std::vector<Output> outputs = both(grad_x);
        outputs.push_back({grad_gamma, {}});
        outputs.push_back({grad_beta, {}});
        return {[=](Ops& ops) {
                  ops.batch_norm_infer_reverse(grad_x, grad_gamma, grad_beta, grad_y, x, gamma, mean, variance,
                                               kEpsilon, rows, Update::overwrite);
                },
                outputs};
      });
}

void register_spectral_norm(std::vector<BenchDevice>& devices) {
  constexpr std::int64_t c = kToyWidth;
  // Vectors of unit length on average; a power iteration normalises them.
  const double length = 1 / std::sqrt(static_cast<double>(c));
  const double bytes = static_cast<double>(3 * c * c * dtype_bytes(DType::f32));
  add(devices, "spectral_norm_forward/100x100", bytes, c, [length](Operands& operands) -> Work {
    const Tensor w = operands.normal({c, c}), u = operands.normal({c}, length), v = operands.normal({c}, length);
    const Tensor normalized = operands.result({c, c}), sigma = operands.result({1});
    return {[=](Ops& ops) { ops.spectral_norm_forward(normalized, sigma, u, v, w, 1, 1e-12); },
            {{normalized, {}}, {sigma, {}}, {u, {}}, {v, {}}}};
  });
  add(devices, "spectral_norm_reverse/100x100", bytes, c, [length](Operands& operands) -> Work {
    const Tensor w = operands.normal({c, c}), u = operands.normal({c}, length), v = operands.normal({c}, length);
    const Tensor normalized = operands.result({c, c}), sigma = operands.result({1});
    operands.ops().spectral_norm_forward(normalized, sigma, u, v, w, 1, 1e-12);
    const Tensor grad_normalized = operands.normal({c, c}), grad_w = operands.result({c, c});
    return {[=](Ops& ops) {
              ops.spectral_norm_reverse(grad_w, grad_normalized, normalized, sigma, u, v, Update::overwrite);
            },
            {{grad_w, {}}}};
  });
}

void register_density(std::vector<BenchDevice>& devices) {
  const Rows energy = kCalibratedEnergy, generator = kCalibratedGenerator;
  constexpr std::int64_t features = 2 + 2 * kFrequencies;
  add(
      devices, "fourier_features_forward/" + row_text(energy, features), bytes_of(energy, features, 1),
      all_rows(energy),
      [energy](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(energy, 2), y = operands.result_rows(energy, features);
        const Tensor frequencies = operands.normal({kFrequencies, 2}, 3);
        return {[=](Ops& ops) { ops.fourier_features_forward(y, x, frequencies, energy); }, both(y)};
      },
      kSteep);
  add(
      devices, "fourier_features_reverse/" + row_text(energy, features), bytes_of(energy, features, 1),
      all_rows(energy),
      [energy](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(energy, 2), grad_y = operands.normal_rows(energy, features);
        const Stacked grad_x = operands.result_rows(energy, 2);
        const Tensor frequencies = operands.normal({kFrequencies, 2}, 3);
        return {
            [=](Ops& ops) { ops.fourier_features_reverse(grad_x, grad_y, x, frequencies, energy, Update::overwrite); },
            both(grad_x)};
      },
      kSteep);
  const std::int64_t parameters = kStaircase.parameters();
  add(
      devices, "monotone_staircase_forward/" + row_text(generator, parameters), bytes_of(generator, parameters, 1),
      all_rows(generator),
      [generator, parameters](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(generator, 2), y = operands.result_rows(generator, 2);
        const Stacked theta = operands.normal_rows(generator, parameters);
        return {[=](Ops& ops) { ops.monotone_staircase_forward(y, {}, x, theta, kStaircase, generator); }, both(y)};
      },
      kSteep);
  add(
      devices, "monotone_staircase_reverse/" + row_text(generator, parameters), bytes_of(generator, parameters, 2),
      all_rows(generator),
      [generator, parameters](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(generator, 2), grad_y = operands.normal_rows(generator, 2);
        const Stacked theta = operands.normal_rows(generator, parameters);
        const Stacked grad_x = operands.result_rows(generator, 2);
        const Stacked grad_theta = operands.result_rows(generator, parameters);
        std::vector<Output> outputs = both(grad_x);
        outputs.push_back({grad_theta.primal, {}});
        outputs.push_back({grad_theta.tangent, {}});
        return {[=](Ops& ops) {
                  ops.monotone_staircase_reverse(grad_x, grad_theta, grad_y, {}, x, theta, kStaircase, generator);
                },
                outputs};
      },
      kSteep);
  add(devices, "confinement_forward/" + row_text(energy, 2), bytes_of(energy, 4, 1), all_rows(energy),
      [energy](Operands& operands) -> Work {
        const Stacked e = operands.normal_rows(energy, 1), x = operands.normal_rows(energy, 2);
        const Stacked y = operands.result_rows(energy, 1);
        return {[=](Ops& ops) { ops.confinement_forward(y, e, x, kConfinement, energy); }, both(y)};
      });
  add(devices, "confinement_reverse/" + row_text(energy, 2), bytes_of(energy, 5, 1), all_rows(energy),
      [energy](Operands& operands) -> Work {
        const Stacked grad_y = operands.normal_rows(energy, 1), x = operands.normal_rows(energy, 2);
        const Stacked grad_x = operands.result_rows(energy, 2);
        return {[=](Ops& ops) { ops.confinement_reverse(grad_x, grad_y, x, kConfinement, energy, Update::overwrite); },
                both(grad_x)};
      });
  add(devices, "affine_columns_forward/" + row_text(energy, 2), bytes_of(energy, 2, 2), all_rows(energy),
      [energy](Operands& operands) -> Work {
        const Stacked x = operands.normal_rows(energy, 2), y = operands.result_rows(energy, 2);
        const Tensor scale = operands.normal({2}), shift = operands.normal({2});
        return {[=](Ops& ops) { ops.affine_columns_forward(y, x, scale, shift, energy); }, both(y)};
      });
}

}  // namespace

void register_layer_cases(std::vector<BenchDevice>& devices) {
  register_activation(devices, "prelu", Activation::prelu, kToyEnergy, kToyWidth);
  register_activation(devices, "prelu", Activation::prelu, kToyGenerator, kToyWidth);
  register_activation(devices, "silu", Activation::silu, kCalibratedEnergy, 64);
  register_activation(devices, "silu", Activation::silu, kCalibratedGenerator, 48);
  register_batch_norm(devices);
  register_spectral_norm(devices);
  register_density(devices);
}

}  // namespace bracket::bench
