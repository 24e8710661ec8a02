// The public side of the op list: transfers, elementwise, linear, activation, normalization, reduction, dense.
// The rest is in training_ops.cpp.
// Every method checks its operands (operand_check.h), makes the device current and hands over to do_<op>. No op is
// skipped for being empty: a sum over nothing is still 0, and a gradient without rows is still overwritten.
#include "kernels/ops.h"

#include "bracket/error.h"
#include "kernels/operand_check.h"

namespace bracket {

void Ops::upload(Tensor y, const void* host) {
  const OperandCheck check("upload");
  check.present("y", y);
  check.contiguous("y", y);
  check.same_shape("y", y, "y", y);
  if (y.size() == 0) return;
  if (host == nullptr) check.fail("host is null but y is " + y.describe());
  copy_bytes_to_device(y.data(), host, y.bytes());
}

void Ops::download(void* host, Tensor x) {
  const OperandCheck check("download");
  check.present("x", x);
  check.contiguous("x", x);
  check.same_shape("x", x, "x", x);
  if (x.size() == 0) return;
  if (host == nullptr) check.fail("host is null but x is " + x.describe());
  copy_bytes_to_host(host, x.data(), x.bytes());
}

void Ops::fill(Tensor y, double value) {
  const OperandCheck check("fill", "y", y);
  check.same_shape("y", y, "y", y);
  const DeviceScope scope(*this);
  do_fill(y, value);
}

void Ops::copy(Tensor y, Tensor x) {
  const OperandCheck check("copy", "y", y);
  check.same_shape("y", y, "x", x);
  check.arithmetic("x", x);
  const DeviceScope scope(*this);
  do_copy(y, x);
}

void Ops::axpy(Tensor y, double alpha, Tensor x) {
  const OperandCheck check("axpy", "y", y);
  check.same_shape("y", y, "x", x);
  check.matrix("x", x, y.rows(), y.cols());
  const DeviceScope scope(*this);
  do_axpy(y, alpha, x);
}

void Ops::linear_forward(Tensor y, Tensor x, Tensor w, const ProductEpilogue& epilogue) {
  const OperandCheck check("linear_forward", "y", y);
  check.present("x", x);
  check.present("w", w);
  check.matrix("y", y, x.rows(), w.rows());
  check.matrix("x", x, x.rows(), w.cols());
  check.matrix("w", w, y.cols(), x.cols());
  check.distinct("y", y, "x", x);
  check.distinct("y", y, "w", w);
  check.epilogue(epilogue, y, w.rows());
  check.distinct("epilogue.before", epilogue.before, "x", x);
  check.distinct("epilogue.before", epilogue.before, "w", w);
  const DeviceScope scope(*this);
  do_linear_forward(y, x, w, epilogue);
}

void Ops::linear_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, Update update) {
  const OperandCheck check("linear_reverse_data", "grad_x", grad_x);
  check.present("grad_y", grad_y);
  check.present("w", w);
  check.matrix("grad_x", grad_x, grad_y.rows(), w.cols());
  check.matrix("grad_y", grad_y, grad_x.rows(), w.rows());
  check.matrix("w", w, grad_y.cols(), grad_x.cols());
  check.distinct("grad_x", grad_x, "grad_y", grad_y);
  check.distinct("grad_x", grad_x, "w", w);
  check.update(update);
  const DeviceScope scope(*this);
  do_linear_reverse_data(grad_x, grad_y, w, update);
}

void Ops::linear_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, Update update) {
  const OperandCheck check("linear_reverse_weights", "grad_w", grad_w);
  check.present("grad_y", grad_y);
  check.present("x", x);
  check.matrix("grad_w", grad_w, grad_y.cols(), x.cols());
  check.matrix("grad_y", grad_y, x.rows(), grad_w.rows());
  check.matrix("x", x, grad_y.rows(), grad_w.cols());
  check.distinct("grad_w", grad_w, "grad_y", grad_y);
  check.distinct("grad_w", grad_w, "x", x);
  check.update(update);
  const DeviceScope scope(*this);
  do_linear_reverse_weights(grad_w, grad_y, x, update);
}

namespace {

/// What the columns repeat with: the bias says it, else the gradient of one, else a slope per channel.
void check_activation(const OperandCheck& check, const ActivationKind& kind, const Tensor& bias,
                      const Tensor& grad_bias, const Tensor& slope, std::int64_t cols) {
  if (kind.function > Activation::softplus) {
    check.fail("activation function " + std::to_string(static_cast<int>(kind.function)) + " is not known");
  }
  check.finite("negative_slope", kind.negative_slope);
  if (!bias.absent()) check.channels("bias", bias, cols);
  if (!grad_bias.absent()) {
    if (bias.absent()) {
      check.channels("grad_bias", grad_bias, cols);
    } else {
      check.vector("grad_bias", grad_bias, bias.rows());
    }
  }
  if (kind.function == Activation::prelu) {
    check.present("slope", slope);
    if (slope.rows() == 1) {
      check.vector("slope", slope, 1);
    } else if (bias.absent() && grad_bias.absent()) {
      check.channels("slope", slope, cols);
    } else {
      check.vector("slope", slope, bias.absent() ? grad_bias.rows() : bias.rows());
    }
  } else if (!slope.absent()) {
    check.fail("slope is " + slope.describe() + " but only prelu has one; leave it absent");
  }
}

}  // namespace

void Ops::bias_activation_forward(Stacked y, Stacked x, Tensor bias, Tensor slope, ActivationKind kind,
                                  const Rows& rows) {
  const OperandCheck check("bias_activation_forward", "x.primal", x.primal);
  const std::int64_t cols = x.primal.cols();
  check.rows(rows);
  check.stacked_output("y", y, rows, cols);
  check.stacked_input("x", x, true, !y.tangent.absent(), rows, cols);
  check_activation(check, kind, bias, {}, slope, cols);
  const DeviceScope scope(*this);
  do_bias_activation_forward(y, x, bias, slope, kind, rows);
}

void Ops::bias_activation_reverse(Stacked grad_x, Tensor grad_bias, Tensor grad_slope, Stacked grad_y, Stacked x,
                                  Tensor bias, Tensor slope, ActivationKind kind, const Rows& rows, Update update) {
  const OperandCheck check("bias_activation_reverse", "x.primal", x.primal);
  const std::int64_t cols = x.primal.cols();
  const bool from_tangents = !grad_y.tangent.absent();
  check.rows(rows);
  check.stacked_gradient("grad_x", grad_x, rows, cols);
  check.stacked_input("grad_y", grad_y, false, !grad_x.tangent.absent(), rows, cols);
  check.stacked_input("x", x, true, from_tangents && !(grad_x.primal.absent() && grad_slope.absent()), rows, cols);
  check_activation(check, kind, bias, grad_bias, slope, cols);
  if (!grad_bias.absent() && grad_x.primal.absent()) {
    check.fail("grad_bias is asked for without grad_x.primal, whose sums it is");
  }
  if (!grad_slope.absent()) {
    if (slope.absent()) check.fail("grad_slope is asked for but there is no slope; leave it absent");
    check.vector("grad_slope", grad_slope, slope.rows());
  }
  check.update(update);
  const DeviceScope scope(*this);
  do_bias_activation_reverse(grad_x, grad_bias, grad_slope, grad_y, x, bias, slope, kind, rows, update);
}

void Ops::batch_norm_train_forward(Tensor y, Tensor mean, Tensor inv_std, Tensor running_mean, Tensor running_variance,
                                   Tensor x, Tensor gamma, Tensor beta, double momentum, double epsilon) {
  const OperandCheck check("batch_norm_train_forward", "x", x);
  const std::int64_t cols = x.cols();
  check.matrix("x", x, x.rows(), cols);
  check.matrix("y", y, x.rows(), cols);
  check.vector("mean", mean, cols);
  check.vector("inv_std", inv_std, cols);
  if (running_mean.absent() != running_variance.absent()) {
    check.fail("only one of running_mean and running_variance is absent; give both or neither");
  }
  if (!running_mean.absent()) {
    check.vector("running_mean", running_mean, cols);
    check.vector("running_variance", running_variance, cols);
  }
  check.vector("gamma", gamma, cols);
  check.vector("beta", beta, cols);
  check.range("momentum", momentum, 0, 1);
  check.positive("epsilon", epsilon);
  const DeviceScope scope(*this);
  do_batch_norm_train_forward(y, mean, inv_std, running_mean, running_variance, x, gamma, beta, momentum, epsilon);
}

void Ops::batch_norm_train_reverse(Tensor grad_x, Tensor grad_gamma, Tensor grad_beta, Tensor grad_y, Tensor x,
                                   Tensor gamma, Tensor mean, Tensor inv_std, Update update) {
  const OperandCheck check("batch_norm_train_reverse", "x", x);
  const std::int64_t cols = x.cols();
  check.matrix("x", x, x.rows(), cols);
  check.matrix("grad_x", grad_x, x.rows(), cols);
  if (!grad_gamma.absent()) check.vector("grad_gamma", grad_gamma, cols);
  if (!grad_beta.absent()) check.vector("grad_beta", grad_beta, cols);
  check.matrix("grad_y", grad_y, x.rows(), cols);
  check.vector("gamma", gamma, cols);
  check.vector("mean", mean, cols);
  check.vector("inv_std", inv_std, cols);
  check.update(update);
  const DeviceScope scope(*this);
  do_batch_norm_train_reverse(grad_x, grad_gamma, grad_beta, grad_y, x, gamma, mean, inv_std, update);
}

void Ops::batch_norm_infer_forward(Stacked y, Stacked x, Tensor gamma, Tensor beta, Tensor running_mean,
                                   Tensor running_variance, double epsilon, const Rows& rows) {
  const OperandCheck check("batch_norm_infer_forward", "gamma", gamma);
  const std::int64_t cols = gamma.rows();
  check.rows(rows);
  check.stacked_output("y", y, rows, cols);
  check.stacked_input("x", x, !y.primal.absent(), !y.tangent.absent(), rows, cols);
  check.vector("gamma", gamma, cols);
  check.vector("beta", beta, cols);
  check.vector("running_mean", running_mean, cols);
  check.vector("running_variance", running_variance, cols);
  check.positive("epsilon", epsilon);
  const DeviceScope scope(*this);
  do_batch_norm_infer_forward(y, x, gamma, beta, running_mean, running_variance, epsilon, rows);
}

void Ops::batch_norm_infer_reverse(Stacked grad_x, Tensor grad_gamma, Tensor grad_beta, Stacked grad_y, Stacked x,
                                   Tensor gamma, Tensor running_mean, Tensor running_variance, double epsilon,
                                   const Rows& rows, Update update) {
  const OperandCheck check("batch_norm_infer_reverse", "gamma", gamma);
  const std::int64_t cols = gamma.rows();
  check.rows(rows);
  check.stacked_gradient("grad_x", grad_x, rows, cols);
  check.stacked_input("grad_y", grad_y, false, !grad_x.tangent.absent(), rows, cols);
  const bool centered = !grad_gamma.absent();
  check.stacked_input("x", x, centered && !grad_y.primal.absent(), centered && !grad_y.tangent.absent(), rows, cols);
  if (!grad_gamma.absent()) check.vector("grad_gamma", grad_gamma, cols);
  if (!grad_beta.absent()) check.vector("grad_beta", grad_beta, cols);
  check.vector("gamma", gamma, cols);
  check.vector("running_mean", running_mean, cols);
  check.vector("running_variance", running_variance, cols);
  check.positive("epsilon", epsilon);
  check.update(update);
  const DeviceScope scope(*this);
  do_batch_norm_infer_reverse(grad_x, grad_gamma, grad_beta, grad_y, x, gamma, running_mean, running_variance, epsilon,
                              rows, update);
}

void Ops::spectral_norm_forward(Tensor w_normalized, Tensor sigma, Tensor u, Tensor v, Tensor w, int iterations,
                                double epsilon) {
  const OperandCheck check("spectral_norm_forward", "w", w);
  check.matrix("w", w, w.rows(), w.cols());
  check.matrix("w_normalized", w_normalized, w.rows(), w.cols());
  check.vector("sigma", sigma, 1);
  check.vector("u", u, w.rows());
  check.vector("v", v, w.cols());
  check.at_least("iterations", iterations, 0);
  check.positive("epsilon", epsilon);
  const DeviceScope scope(*this);
  do_spectral_norm_forward(w_normalized, sigma, u, v, w, iterations, epsilon);
}

void Ops::spectral_norm_reverse(Tensor grad_w, Tensor grad_w_normalized, Tensor w_normalized, Tensor sigma, Tensor u,
                                Tensor v, Update update) {
  const OperandCheck check("spectral_norm_reverse", "w_normalized", w_normalized);
  const std::int64_t out = w_normalized.rows();
  const std::int64_t in = w_normalized.cols();
  check.matrix("grad_w", grad_w, out, in);
  check.matrix("grad_w_normalized", grad_w_normalized, out, in);
  check.matrix("w_normalized", w_normalized, out, in);
  check.vector("sigma", sigma, 1);
  check.vector("u", u, out);
  check.vector("v", v, in);
  check.update(update);
  const DeviceScope scope(*this);
  do_spectral_norm_reverse(grad_w, grad_w_normalized, w_normalized, sigma, u, v, update);
}

void Ops::row_dot(Tensor y, Tensor a, Tensor b) {
  const OperandCheck check("row_dot", "a", a);
  check.vector("y", y, a.rows());
  check.matrix("a", a, a.rows(), a.cols());
  check.matrix("b", b, a.rows(), a.cols());
  const DeviceScope scope(*this);
  do_row_dot(y, a, b);
}

void Ops::row_norm(Tensor y, Tensor x) {
  const OperandCheck check("row_norm", "x", x);
  check.vector("y", y, x.rows());
  check.matrix("x", x, x.rows(), x.cols());
  const DeviceScope scope(*this);
  do_row_norm(y, x);
}

void Ops::sum(Tensor sum, Tensor x, Tensor workspace) {
  const OperandCheck check("sum", "x", x);
  check.f64_vector("sum", sum, 1);
  check.matrix("x", x, x.rows(), x.cols());
  check.workspace(workspace);
  const DeviceScope scope(*this);
  do_sum(sum, x, workspace);
}

void Ops::squared_norm(Tensor sum, Tensor x, Tensor workspace) {
  const OperandCheck check("squared_norm", "x", x);
  check.f64_vector("sum", sum, 1);
  check.matrix("x", x, x.rows(), x.cols());
  check.workspace(workspace);
  const DeviceScope scope(*this);
  do_squared_norm(sum, x, workspace);
}

void Ops::finite_check(StepState* state, Tensor x, std::int64_t tag, Tensor workspace) {
  const OperandCheck check("finite_check", "x", x);
  check.state(state);
  check.matrix("x", x, x.rows(), x.cols());
  check.at_least("tag", tag, 1);
  check.workspace(workspace);
  const DeviceScope scope(*this);
  do_finite_check(state, x, tag, workspace);
}

void Ops::gram(Tensor g, Tensor t) {
  const OperandCheck check("gram", "t", t);
  check.f64_squares("g", g);
  check.matrix("t", t, g.extent(0) * g.extent(1), t.cols());
  check.distinct("g", g, "t", t);
  const DeviceScope scope(*this);
  do_gram(g, t);
}

void Ops::cholesky(Tensor g) {
  const OperandCheck check("cholesky");
  check.f64_squares("g", g);
  const DeviceScope scope(*this);
  do_cholesky(g);
}

void Ops::triangular_solve(Tensor x, Tensor l, Tensor b, bool transposed) {
  const OperandCheck check("triangular_solve", "b", b);
  check.f64_squares("l", l);
  const std::int64_t rows = l.extent(0) * l.extent(1);
  check.matrix("x", x, rows, b.cols());
  check.matrix("b", b, rows, b.cols());
  const DeviceScope scope(*this);
  do_triangular_solve(x, l, b, transposed);
}

void Ops::log_diagonal_sum(Tensor h, Tensor l) {
  const OperandCheck check("log_diagonal_sum", "h", h);
  check.f64_squares("l", l);
  check.vector("h", h, l.extent(0));
  const DeviceScope scope(*this);
  do_log_diagonal_sum(h, l);
}

void Ops::symmetric_eigen(Tensor values, Tensor vectors, Tensor a) {
  const OperandCheck check("symmetric_eigen");
  check.f64_squares("a", a);
  check.f64_matrix("values", values, a.extent(0), a.extent(1));
  check.f64_squares("vectors", vectors, a.extent(0), a.extent(1));
  check.distinct("vectors", vectors, "a", a);
  check.distinct("values", values, "a", a);
  const DeviceScope scope(*this);
  do_symmetric_eigen(values, vectors, a);
}

void Ops::min_singular(Tensor h, Tensor v, Tensor scale, Tensor values, Tensor vectors) {
  const OperandCheck check("min_singular", "h", h);
  check.f64_squares("vectors", vectors);
  const std::int64_t n = vectors.extent(0);
  const std::int64_t k = vectors.extent(1);
  if (n > 0) check.at_least("K", k, 1);
  check.f64_matrix("values", values, n, k);
  check.vector("h", h, n);
  check.matrix("v", v, n, k);
  check.vector("scale", scale, n);
  const DeviceScope scope(*this);
  do_min_singular(h, v, scale, values, vectors);
}

void Ops::combine_tangents(Tensor y, Tensor t, Tensor v) {
  const OperandCheck check("combine_tangents", "t", t);
  check.present("v", v);
  check.matrix("v", v, v.rows(), v.cols());
  check.matrix("y", y, v.rows(), t.cols());
  check.matrix("t", t, v.rows() * v.cols(), t.cols());
  check.distinct("y", y, "t", t);
  check.distinct("y", y, "v", v);
  const DeviceScope scope(*this);
  do_combine_tangents(y, t, v);
}

void Ops::scale_rows(Tensor y, Tensor x, Tensor scale, double factor) {
  const OperandCheck check("scale_rows", "x", x);
  check.matrix("y", y, x.rows(), x.cols());
  check.matrix("x", x, x.rows(), x.cols());
  check.vector("scale", scale, x.rows());
  const DeviceScope scope(*this);
  do_scale_rows(y, x, scale, factor);
}

void Ops::tile_identity(Tensor t, std::int64_t samples) {
  const OperandCheck check("tile_identity", "t", t);
  check.at_least("samples", samples, 0);
  if (t.cols() > 0 && samples > t.rows() / t.cols())
    check.fail("t is " + t.describe() + ", too small for " + std::to_string(samples) + " identities of its width");
  check.matrix("t", t, samples * t.cols(), t.cols());
  const DeviceScope scope(*this);
  do_tile_identity(t, samples);
}

}  // namespace bracket
