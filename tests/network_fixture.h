// A network with parameters of its own on a test device, and the scalar whose derivatives the tests check.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bracket/error.h"
#include "bracket/network.h"
#include "host/training/inference.h"
#include "tests/ops_fixture.h"

namespace bracket::test {

class NetworkOnDevice {
 public:
  NetworkOnDevice(Context& context, NetworkSpec spec, DType dtype, std::uint64_t seed = test_seed(),
                  const NetworkExecution& execution = {})
      : context_(&context), network_(std::move(spec), dtype, execution) {
    values_ = empty(context, dtype, {network_.value_elements()});
    buffers_ = empty(context, dtype, {network_.buffer_elements()});
    gradient_ = empty(context, dtype, {network_.value_elements()});
    context.ops().fill(gradient_, 0);
    network_.initialize(context.ops(), parameters(), seed, RandomStream::test);
    arena_ = Arena(context.pool(), std::int64_t{64} << 20);
  }

  const Network& network() const { return network_; }
  Network& network() { return network_; }
  ParameterSet parameters() const { return {values_, buffers_}; }
  Context& context() const { return *context_; }
  Arena& arena() { return arena_; }
  Tensor gradient() const { return gradient_; }
  /// What StackedFunctional tells its passes of their use.
  FurtherUse further = {};

  std::vector<double> values() const { return to_host(context_->ops(), values_); }
  void set_values(const std::vector<double>& values) { to_device(context_->ops(), values_, values); }
  std::vector<double> buffers() const { return to_host(context_->ops(), buffers_); }
  void set_buffers(const std::vector<double>& values) { to_device(context_->ops(), buffers_, values); }

  /// Values of one parameter by its name in files.
  std::vector<double> values_of(const std::string& name) const {
    const std::vector<double> all = values();
    for (const ParameterInfo& info : network_.parameters()) {
      if (info.name == name) return {all.begin() + info.offset, all.begin() + info.offset + info.size()};
    }
    throw InvalidArgument("no parameter " + name);
  }

  /// Running statistics as some training might have left them: means in +-0.5, variances in [0.5, 1.5].
  void randomize_statistics() {
    std::vector<double> v = buffers();
    const HostMatrix noise = random_matrix(1, static_cast<std::int64_t>(v.size()), 78, -0.5, 0.5);
    for (const ParameterInfo& info : network_.parameters()) {
      const bool mean = info.name.ends_with("running_mean"), variance = info.name.ends_with("running_var");
      if (!mean && !variance) continue;
      for (std::int64_t i = info.offset; i < info.offset + info.size(); ++i)
        v[static_cast<std::size_t>(i)] = (variance ? 1 : 0) + noise.values[static_cast<std::size_t>(i)];
    }
    set_buffers(v);
  }

  /// Moves every learnt element by a uniform amount, so that no test point sits at a special start.
  void perturb(double amount) {
    std::vector<double> v = values();
    const HostMatrix noise = random_matrix(1, static_cast<std::int64_t>(v.size()), 77, -amount, amount);
    for (const ParameterInfo& info : network_.parameters()) {
      if (info.buffer) continue;
      for (std::int64_t i = info.offset; i < info.offset + info.size(); ++i) {
        v[static_cast<std::size_t>(i)] += noise.values[static_cast<std::size_t>(i)];
      }
    }
    set_values(v);
  }

 private:
  Context* context_;
  Network network_;
  DeviceTensor values_, buffers_, gradient_;
  Arena arena_;
};

/// <c, y> + <c', y'>, and with log-volumes h (NetworkOnDevice::further) + <b, h> + <b', h'>, over a stacked pass: its
/// derivatives in x, in the tangents and in the parameters are what
/// Network::reverse returns for cotangents c, c'.
struct StackedFunctional {
  HostMatrix x, tangents;  // tangents: [layout.rows(), inputs], or no rows
  HostMatrix cotangent, tangent_cotangent;
  HostMatrix volume_cotangent, volume_tangent_cotangent;  // [rows, 1], [layout.rows(), 1]
  TangentLayout layout;
  PassMode mode = PassMode::inference;
  /// Where asked for, `value` leaves here the sign of every value of the primal pass and every byte that it keeps
  /// (masks, choices): what changes when a piecewise-linear function bends.
  bool record_pattern = false;
  mutable std::vector<std::uint8_t> pattern = {};

  struct Gradients {
    std::vector<double> parameters, x, tangents;
  };

  double value(NetworkOnDevice& n) const {
    n.arena().rewind(0);
    PrimalPass pass;
    TangentPass tangent_pass;
    forward(n, pass, tangent_pass);
    double sum = dot(to_host(n.context().ops(), pass.output()), cotangent.values);
    if (tangents.rows > 0) sum += dot(to_host(n.context().ops(), tangent_pass.output()), tangent_cotangent.values);
    if (n.further.log_volume) {
      sum += dot(to_host(n.context().ops(), pass.log_volume), volume_cotangent.values);
      if (tangents.rows > 0)
        sum += dot(to_host(n.context().ops(), tangent_pass.log_volume), volume_tangent_cotangent.values);
    }
    if (record_pattern) pattern = pattern_of(n, pass);
    return sum;
  }

  /// `split`: a primal pass first, its tangents pushed later, instead of the fused call.
  Gradients gradients(NetworkOnDevice& n, bool split) const {
    Ops& ops = n.context().ops();
    n.arena().rewind(0);
    PrimalPass pass;
    TangentPass tangent_pass;
    const DeviceTensor device_x = upload(n.context(), x, n.network().dtype());
    const DeviceTensor device_t = upload(n.context(), tangents, n.network().dtype());
    if (split) {
      n.network().forward(ops, n.arena(), pass, n.parameters(), device_x, mode, n.further);
      if (tangents.rows > 0) n.network().push(ops, n.arena(), tangent_pass, pass, device_t, layout);
    } else {
      forward(n, pass, tangent_pass);
    }
    const bool tangent = tangents.rows > 0;
    const DeviceTensor c = upload(n.context(), cotangent, n.network().dtype());
    const DeviceTensor ct = upload(n.context(), tangent_cotangent, n.network().dtype());
    const DeviceTensor grad_x = empty_matrix(n.context(), n.network().dtype(), x.rows, x.cols);
    const DeviceTensor grad_t = empty_matrix(n.context(), n.network().dtype(), tangents.rows, tangents.cols);
    ReverseRequest request;
    request.grad_input = grad_x;
    if (tangent) request.grad_tangent_input = grad_t;
    request.grad_parameters = n.gradient();
    const DeviceTensor b = upload(n.context(), volume_cotangent, n.network().dtype());
    const DeviceTensor bt = upload(n.context(), volume_tangent_cotangent, n.network().dtype());
    LogVolumeCotangents volume;
    if (n.further.log_volume) volume = {b, tangent ? Tensor(bt) : Tensor()};
    n.network().reverse(ops, n.arena(), pass, tangent ? &tangent_pass : nullptr, c, tangent ? Tensor(ct) : Tensor(),
                        request, volume);
    return {to_host(ops, n.gradient()), download(n.context(), grad_x).values, download(n.context(), grad_t).values};
  }

  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }

 private:
  static std::vector<std::uint8_t> pattern_of(NetworkOnDevice& n, const PrimalPass& pass) {
    std::vector<std::uint8_t> pattern;
    for (const Tensor& slot : pass.slots)
      for (const double v : to_host(n.context().ops(), slot)) pattern.push_back(v > 0 ? 2 : v < 0 ? 0 : 1);
    for (const Tensor& extra : pass.extras) {
      if (extra.dtype() != DType::u8) continue;
      std::vector<std::uint8_t> bytes(static_cast<std::size_t>(extra.size()));
      n.context().ops().download(bytes.data(), extra);
      pattern.insert(pattern.end(), bytes.begin(), bytes.end());
    }
    return pattern;
  }

  void forward(NetworkOnDevice& n, PrimalPass& pass, TangentPass& tangent_pass) const {
    Ops& ops = n.context().ops();
    const DType dtype = n.network().dtype();
    const Tensor rows = n.arena().allocate(dtype, {x.rows + tangents.rows, x.cols});
    upload_into(n.context(), rows.slice_rows(0, x.rows), x);
    if (tangents.rows == 0) {
      n.network().forward(ops, n.arena(), pass, n.parameters(), rows, mode, n.further);
      return;
    }
    upload_into(n.context(), rows.slice_rows(x.rows, tangents.rows), tangents);
    n.network().forward(ops, n.arena(), pass, tangent_pass, n.parameters(), rows.slice_rows(0, x.rows),
                        rows.slice_rows(x.rows, tangents.rows), layout, mode, n.further);
  }
};

/// Fourth-order central difference of f at 0.
template <class F>
double central_difference(const F& f, double step) {
  return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step);
}

/// Largest |a - b| / max(|a|, |b|, floor).
class WorstError {
 public:
  explicit WorstError(double floor) : floor_(floor) {}
  void add(double a, double b, const std::string& where) {
    const double error = std::abs(a - b) / std::max({std::abs(a), std::abs(b), floor_});
    if (!(error <= worst_)) {
      worst_ = error;
      where_ = where + ": " + std::to_string(a) + " against " + std::to_string(b);
    }
  }
  double worst() const { return worst_; }
  double floor() const { return floor_; }
  const std::string& where() const { return where_; }

 private:
  double floor_;
  double worst_ = 0;
  std::string where_;
};

}  // namespace bracket::test
