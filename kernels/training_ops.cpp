// The public side of the op list: layers of calibrated densities, optimizer, losses, random numbers. See ops.cpp.
#include <cmath>

#include "kernels/operand_check.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

template <class MapT>
void check_active_columns(const OperandCheck& check, const MapT& map, std::int64_t cols) {
  if (map.active_first < 0 || map.active_count < 0 || map.active_first > cols ||
      map.active_count > cols - map.active_first) {
    check.fail("active columns [" + std::to_string(map.active_first) + ", " + std::to_string(map.active_first) + " + " +
               std::to_string(map.active_count) + ") do not lie within the " + std::to_string(cols) + " columns of x");
  }
}

void check_staircase(const OperandCheck& check, const Staircase& map, std::int64_t cols) {
  check.at_least("knots", map.knots, 0);
  check_active_columns(check, map, cols);
  check.positive("max_slope", map.max_slope);
  check.range("max_height", map.max_height, 0, 1e30);
}

void check_rational_quadratic(const OperandCheck& check, const RationalQuadratic& map, std::int64_t cols) {
  check.at_least("bins", map.bins, 1);
  check_active_columns(check, map, cols);
  check.positive("bound", map.bound);
  check.positive("min_width", map.min_width);
  check.positive("min_height", map.min_height);
  check.positive("min_derivative", map.min_derivative);
  const auto below_one = [&](const char* name, double value) {
    if (!(value < 1)) check.fail(std::string(name) + " is " + std::to_string(value) + ", must be below 1");
  };
  below_one("bins min_width", static_cast<double>(map.bins) * map.min_width);
  below_one("bins min_height", static_cast<double>(map.bins) * map.min_height);
  below_one("min_derivative", map.min_derivative);
}

bool any_part(const Stacked& x) { return !x.primal.absent() || !x.tangent.absent(); }

// A map of active columns with parameters per row; with it, the logarithm of its slopes.
template <class MapT>
void check_coupling_forward(const OperandCheck& check, const Stacked& y, const Stacked& log_slope, const Stacked& x,
                            const Stacked& theta, const MapT& map, const Rows& rows) {
  const std::int64_t cols = x.primal.cols();
  const bool tangents = !y.tangent.absent() || !log_slope.tangent.absent();
  check.rows(rows);
  check.stacked_output("y", y, rows, cols);
  if (any_part(log_slope)) check.stacked_output("log_slope", log_slope, rows, map.active_count);
  check.stacked_input("x", x, true, tangents, rows, cols);
  check.stacked_input("theta", theta, true, tangents, map.theta_rows(rows, cols), map.parameters());
}

template <class MapT>
void check_coupling_reverse(const OperandCheck& check, const Stacked& grad_x, const Stacked& grad_theta,
                            const Stacked& grad_y, const Stacked& grad_log_slope, const Stacked& x,
                            const Stacked& theta, const MapT& map, const Rows& rows) {
  const std::int64_t cols = x.primal.cols();
  const bool primal = !grad_x.primal.absent() || !grad_theta.primal.absent();
  const bool tangent = !grad_x.tangent.absent() || !grad_theta.tangent.absent();
  check.rows(rows);
  check.stacked_gradient("grad_x", grad_x, rows, cols);
  const Rows theta_rows = map.theta_rows(rows, cols);
  check.stacked_gradient("grad_theta", grad_theta, theta_rows, map.parameters());
  check.stacked_input("grad_y", grad_y, primal, tangent || !grad_log_slope.tangent.absent(), rows, cols);
  check.stacked_input("grad_log_slope", grad_log_slope, false, false, rows, map.active_count);
  const bool second_order = primal && !grad_y.tangent.absent();
  const bool x_needed = second_order || (map.passive_jacobian && !grad_theta.tangent.absent());
  const bool theta_needed = second_order || (map.passive_jacobian && !grad_x.tangent.absent());
  check.stacked_input("x", x, true, x_needed, rows, cols);
  check.stacked_input("theta", theta, true, theta_needed, theta_rows, map.parameters());
}

void check_confinement(const OperandCheck& check, const Confinement& map) {
  check.range("quadratic", map.quadratic, 0, 1e30);
  check.range("wall", map.wall, 0, 1e30);
  check.range("radius", map.radius, 0, 1e30);
}

}  // namespace

void Ops::fourier_features_forward(Stacked y, Stacked x, Tensor frequencies, const Rows& rows) {
  const OperandCheck check("fourier_features_forward", "frequencies", frequencies);
  const std::int64_t dims = frequencies.cols();
  const std::int64_t features = frequencies.rows();
  check.rows(rows);
  check.matrix("frequencies", frequencies, features, dims);
  check.stacked_output("y", y, rows, dims + 2 * features);
  check.stacked_input("x", x, true, !y.tangent.absent(), rows, dims);
  const DeviceScope scope(*this);
  do_fourier_features_forward(y, x, frequencies, rows);
}

void Ops::fourier_features_reverse(Stacked grad_x, Stacked grad_y, Stacked x, Tensor frequencies, const Rows& rows,
                                   Update update) {
  const OperandCheck check("fourier_features_reverse", "frequencies", frequencies);
  const std::int64_t dims = frequencies.cols();
  const std::int64_t features = frequencies.rows();
  check.rows(rows);
  check.matrix("frequencies", frequencies, features, dims);
  check.stacked_gradient("grad_x", grad_x, rows, dims);
  check.stacked_input("grad_y", grad_y, !grad_x.primal.absent(), !grad_x.tangent.absent(), rows, dims + 2 * features);
  check.stacked_input("x", x, true, !grad_x.primal.absent() && !grad_y.tangent.absent(), rows, dims);
  check.update(update);
  const DeviceScope scope(*this);
  do_fourier_features_reverse(grad_x, grad_y, x, frequencies, rows, update);
}

void Ops::monotone_staircase_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta, const Staircase& map,
                                     const Rows& rows) {
  const OperandCheck check("monotone_staircase_forward", "x.primal", x.primal);
  check_staircase(check, map, x.primal.cols());
  check_coupling_forward(check, y, log_slope, x, theta, map, rows);
  const DeviceScope scope(*this);
  do_monotone_staircase_forward(y, log_slope, x, theta, map, rows);
}

void Ops::monotone_staircase_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope,
                                     Stacked x, Stacked theta, const Staircase& map, const Rows& rows) {
  const OperandCheck check("monotone_staircase_reverse", "x.primal", x.primal);
  check_staircase(check, map, x.primal.cols());
  check_coupling_reverse(check, grad_x, grad_theta, grad_y, grad_log_slope, x, theta, map, rows);
  const DeviceScope scope(*this);
  do_monotone_staircase_reverse(grad_x, grad_theta, grad_y, grad_log_slope, x, theta, map, rows);
}

void Ops::rational_quadratic_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta,
                                     const RationalQuadratic& map, const Rows& rows) {
  const OperandCheck check("rational_quadratic_forward", "x.primal", x.primal);
  check_rational_quadratic(check, map, x.primal.cols());
  check_coupling_forward(check, y, log_slope, x, theta, map, rows);
  const DeviceScope scope(*this);
  do_rational_quadratic_forward(y, log_slope, x, theta, map, rows);
}

void Ops::rational_quadratic_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope,
                                     Stacked x, Stacked theta, const RationalQuadratic& map, const Rows& rows) {
  const OperandCheck check("rational_quadratic_reverse", "x.primal", x.primal);
  check_rational_quadratic(check, map, x.primal.cols());
  check_coupling_reverse(check, grad_x, grad_theta, grad_y, grad_log_slope, x, theta, map, rows);
  const DeviceScope scope(*this);
  do_rational_quadratic_reverse(grad_x, grad_theta, grad_y, grad_log_slope, x, theta, map, rows);
}

void Ops::confinement_forward(Stacked y, Stacked e, Stacked x, const Confinement& map, const Rows& rows) {
  const OperandCheck check("confinement_forward", "x.primal", x.primal);
  check.rows(rows);
  check_confinement(check, map);
  check.stacked_output("y", y, rows, 1);
  check.stacked_input("e", e, !y.primal.absent(), !y.tangent.absent(), rows, 1);
  check.stacked_input("x", x, true, !y.tangent.absent(), rows, x.primal.cols());
  const DeviceScope scope(*this);
  do_confinement_forward(y, e, x, map, rows);
}

void Ops::confinement_reverse(Stacked grad_x, Stacked grad_y, Stacked x, const Confinement& map, const Rows& rows,
                              Update update) {
  const OperandCheck check("confinement_reverse", "x.primal", x.primal);
  const std::int64_t dims = x.primal.cols();
  check.rows(rows);
  check_confinement(check, map);
  check.stacked_gradient("grad_x", grad_x, rows, dims);
  check.stacked_input("grad_y", grad_y, !grad_x.primal.absent(), !grad_x.tangent.absent(), rows, 1);
  check.stacked_input("x", x, true, !grad_x.primal.absent() && !grad_y.tangent.absent(), rows, dims);
  check.update(update);
  const DeviceScope scope(*this);
  do_confinement_reverse(grad_x, grad_y, x, map, rows, update);
}

void Ops::affine_columns_forward(Stacked y, Stacked x, Tensor scale, Tensor shift, const Rows& rows) {
  const OperandCheck check("affine_columns_forward", "scale", scale);
  const std::int64_t cols = scale.rows();
  check.rows(rows);
  check.vector("scale", scale, cols);
  check.vector("shift", shift, cols);
  check.stacked_output("y", y, rows, cols);
  check.stacked_input("x", x, !y.primal.absent(), !y.tangent.absent(), rows, cols);
  const DeviceScope scope(*this);
  do_affine_columns_forward(y, x, scale, shift, rows);
}

void Ops::affine_columns_reverse(Stacked grad_x, Stacked grad_y, Tensor scale, const Rows& rows, Update update) {
  const OperandCheck check("affine_columns_reverse", "scale", scale);
  const std::int64_t cols = scale.rows();
  check.rows(rows);
  check.vector("scale", scale, cols);
  check.stacked_gradient("grad_x", grad_x, rows, cols);
  check.stacked_input("grad_y", grad_y, !grad_x.primal.absent(), !grad_x.tangent.absent(), rows, cols);
  check.update(update);
  const DeviceScope scope(*this);
  do_affine_columns_reverse(grad_x, grad_y, scale, rows, update);
}

void Ops::begin_step(StepState* state, const Schedule& schedule) {
  const OperandCheck check("begin_step");
  check.state(state);
  check.range("base_rate[energy]", schedule.base_rate[0], 0, 1e30);
  check.range("base_rate[generator]", schedule.base_rate[1], 0, 1e30);
  check.at_least("warmup_steps", schedule.warmup_steps, 0);
  check.at_least("total_steps", schedule.total_steps, schedule.cosine ? 1 : 0);
  check.range("final_fraction", schedule.final_fraction, 0, 1);
  if (schedule.weight_rule > Schedule::Weight::adaptive || schedule.weight_rule < Schedule::Weight::constant) {
    check.fail("weight_rule " + std::to_string(static_cast<std::int32_t>(schedule.weight_rule)) + " is not known");
  }
  check.range("weight", schedule.weight, 0, 1e30);
  check.finite("weight_exponent", schedule.weight_exponent);
  check.range("weight_offset", schedule.weight_offset, 0, 1e30);
  const DeviceScope scope(*this);
  do_begin_step(state, schedule);
}

void Ops::clip_gradient(StepState* state, Tensor squared_norm, double limit, Player player) {
  const OperandCheck check("clip_gradient");
  check.state(state);
  check.f64_vector("squared_norm", squared_norm, 1);
  check.range("limit", limit, 0, 1e300);
  check.player(player);
  const DeviceScope scope(*this);
  do_clip_gradient(state, squared_norm, limit, player);
}

void Ops::adam(Tensor parameters, Tensor first_moment, Tensor second_moment, Tensor gradient, const Adam& rule,
               const StepState* state, Player player) {
  const OperandCheck check("adam", "parameters", parameters);
  const std::int64_t n = parameters.size();
  check.vector("parameters", parameters, n);
  check.range("beta1", rule.beta1, 0, std::nextafter(1.0, 0.0));
  check.range("beta2", rule.beta2, 0, std::nextafter(1.0, 0.0));
  check.positive("epsilon", rule.epsilon);
  check.range("weight_decay", rule.weight_decay, 0, 1e30);
  if (rule.beta1 != 0 || !first_moment.absent()) check.vector("first_moment", first_moment, n);
  check.vector("second_moment", second_moment, n);
  check.vector("gradient", gradient, n);
  check.state(state);
  check.player(player);
  const DeviceScope scope(*this);
  do_adam(parameters, first_moment, second_moment, gradient, rule, state, player);
}

void Ops::count_update(StepState* state, Player player) {
  const OperandCheck check("count_update");
  check.state(state);
  check.player(player);
  const DeviceScope scope(*this);
  do_count_update(state, player);
}

void Ops::ema(Tensor average, Tensor parameters, double decay, const StepState* state) {
  const OperandCheck check("ema", "parameters", parameters);
  check.vector("parameters", parameters, parameters.size());
  check.vector("average", average, parameters.size());
  check.range("decay", decay, 0, 1);
  check.state(state);
  const DeviceScope scope(*this);
  do_ema(average, parameters, decay, state);
}

void Ops::end_step(StepState* state, StepRecord* ring, std::int64_t ring_size) {
  const OperandCheck check("end_step");
  check.state(state);
  check.state(ring, "ring");
  check.at_least("ring_size", ring_size, 1);
  const DeviceScope scope(*this);
  do_end_step(state, ring, ring_size);
}

void Ops::energy_loss(Tensor seed_data, Tensor seed_fake, Tensor seed_tangent, StepState* state, Tensor e_data,
                      Tensor e_fake, Tensor e_tangent, Tensor score_dot, const PenaltyRule& rule) {
  const OperandCheck check("energy_loss", "e_data", e_data);
  const std::int64_t n = e_data.rows();
  check.state(state);
  check.at_least("the batch size", n, 1);
  check.vector("seed_data", seed_data, n);
  check.vector("seed_fake", seed_fake, n);
  check.vector("seed_tangent", seed_tangent, n);
  check.vector("e_data", e_data, n);
  check.vector("e_fake", e_fake, n);
  check.vector("e_tangent", e_tangent, n);
  if (!rule.data_gradient) {
    check.vector("score_dot", score_dot, n);
  } else if (!score_dot.absent()) {
    check.fail("score_dot is " + score_dot.describe() + " but the data-gradient penalty has none; leave it absent");
  }
  check.range("threshold", rule.threshold, 0, 1e300);
  const DeviceScope scope(*this);
  do_energy_loss(seed_data, seed_fake, seed_tangent, state, e_data, e_fake, e_tangent, score_dot, rule);
}

void Ops::generator_loss(StepState* state, Tensor e_fake, Tensor h, double entropy_weight) {
  const OperandCheck check("generator_loss", "e_fake", e_fake);
  check.state(state);
  check.at_least("the batch size", e_fake.rows(), 1);
  check.vector("e_fake", e_fake, e_fake.rows());
  check.vector("h", h, e_fake.rows());
  check.finite("entropy_weight", entropy_weight);
  const DeviceScope scope(*this);
  do_generator_loss(state, e_fake, h, entropy_weight);
}

void Ops::bound_record(StepState* state, Tensor e_fake, Tensor h, Tensor latent) {
  const OperandCheck check("bound_record", "e_fake", e_fake);
  check.state(state);
  check.at_least("the batch size", e_fake.rows(), 1);
  check.vector("e_fake", e_fake, e_fake.rows());
  check.vector("h", h, e_fake.rows());
  check.matrix("latent", latent, e_fake.rows(), latent.cols());
  const DeviceScope scope(*this);
  do_bound_record(state, e_fake, h, latent);
}

void Ops::adapt_penalty_weight(StepState* state, const WeightController& rule) {
  const OperandCheck check("adapt_penalty_weight");
  check.state(state);
  check.positive("target", rule.target);
  check.range("gain", rule.gain, 0, 1e30);
  check.range("decay", rule.decay, 0, 1);
  check.range("minimum", rule.minimum, 0, 1e300);
  check.range("maximum", rule.maximum, rule.minimum, 1e300);
  check.at_least("delay", rule.delay, 0);
  const DeviceScope scope(*this);
  do_adapt_penalty_weight(state, rule);
}

void Ops::random_uniform(Tensor y, const RandomKey& key, double low, double high, const std::int64_t* counter) {
  const OperandCheck check("random_uniform", "y", y);
  check.contiguous("y", y);
  check.matrix("y", y, y.rows(), y.cols());
  check.finite("low", low);
  check.finite("high", high);
  check.range("low", low, -1e300, high);
  check.key(key, counter);
  const DeviceScope scope(*this);
  do_random_uniform(y, key, low, high, counter);
}

void Ops::random_normal(Tensor y, const RandomKey& key, const std::int64_t* counter) {
  const OperandCheck check("random_normal", "y", y);
  check.contiguous("y", y);
  check.matrix("y", y, y.rows(), y.cols());
  check.key(key, counter);
  const DeviceScope scope(*this);
  do_random_normal(y, key, counter);
}

void Ops::toy_samples(Tensor y, ToyData data, const RandomKey& key, const std::int64_t* counter) {
  const OperandCheck check("toy_samples", "y", y);
  check.matrix("y", y, y.rows(), 2);
  if (data < ToyData::gaussians25 || data > ToyData::swiss_roll_thin) {
    check.fail("toy data set " + std::to_string(static_cast<std::int32_t>(data)) + " is not known");
  }
  check.key(key, counter);
  const DeviceScope scope(*this);
  do_toy_samples(y, data, key, counter);
}

void Ops::gather_batch(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter) {
  const OperandCheck check("gather_batch", "y", y);
  check.present("table", table);
  check.matrix("table", table, table.rows(), table.cols());
  check.matrix("y", y, y.rows(), table.cols());
  if (y.rows() > 0) check.at_least("the number of table rows", table.rows(), 1);
  check.distinct("y", y, "table", table);
  check.key(key, counter);
  const DeviceScope scope(*this);
  do_gather_batch(y, table, key, counter);
}

}  // namespace bracket
