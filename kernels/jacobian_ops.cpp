// The public side of the op list: estimators of Jacobians that are given as products only. See ops.cpp.
#include "kernels/operand_check.h"
#include "kernels/ops.h"

namespace bracket {
namespace {

/// Singular values that one block sorts: 12 bytes of shared memory each, of the 48 KiB that every GPU has.
constexpr std::int64_t kMostValues = 4096;

}  // namespace

void Ops::lq_factor(Tensor l, Tensor t) {
  const OperandCheck check("lq_factor");
  check.f64_squares("l", l);
  check.present("t", t);
  const std::int64_t k = l.extent(1);
  check.f64_matrix("t", t, l.extent(0) * k, t.cols());
  if (k > t.cols())
    check.fail("t has " + std::to_string(k) + " rows of " + std::to_string(t.cols()) +
               " columns per sample; there may not be more rows than columns");
  check.distinct("l", l, "t", t);
  const DeviceScope scope(*this);
  do_lq_factor(l, t);
}

void Ops::singular_values(Tensor values, Tensor vectors, Tensor a) {
  const OperandCheck check("singular_values");
  check.f64_squares("a", a);
  if (a.extent(1) > kMostValues)
    check.fail("a is " + a.describe() + "; needs K <= " + std::to_string(kMostValues) +
               ", of which a GPU sorts so many");
  check.f64_matrix("values", values, a.extent(0), a.extent(1));
  check.f64_squares("vectors", vectors, a.extent(0), a.extent(1));
  check.distinct("vectors", vectors, "a", a);
  check.distinct("values", values, "a", a);
  const DeviceScope scope(*this);
  do_singular_values(values, vectors, a);
}

void Ops::log_volume(Tensor h, Tensor deficiency, Tensor values, double tolerance) {
  const OperandCheck check("log_volume");
  check.present("values", values);
  check.f64_matrix("values", values, values.rows(), values.cols());
  check.f64_vector("h", h, values.rows());
  check.f64_vector("deficiency", deficiency, values.rows());
  check.range("tolerance", tolerance, 0, 1);
  const DeviceScope scope(*this);
  do_log_volume(h, deficiency, values, tolerance);
}

void Ops::rank_threshold(Tensor h, Tensor scale, Tensor deficient, Tensor mu, Tensor largest, double tolerance) {
  const OperandCheck check("rank_threshold", "scale", scale);
  check.present("largest", largest);
  check.f64_vector("largest", largest, largest.rows());
  check.f64_vector("deficient", deficient, largest.rows());
  check.vector("scale", scale, scale.rows());
  if (largest.rows() > 0) check.divides("rows of largest", largest.rows(), "rows of scale", scale.rows());
  check.f64_vector("h", h, scale.rows());
  check.f64_vector("mu", mu, scale.rows());
  check.range("tolerance", tolerance, 0, 1);
  const DeviceScope scope(*this);
  do_rank_threshold(h, scale, deficient, mu, largest, tolerance);
}

void Ops::normalize_rows(Tensor y, Tensor norm, Tensor x) {
  const OperandCheck check("normalize_rows", "x", x);
  check.matrix("x", x, x.rows(), x.cols());
  check.matrix("y", y, x.rows(), x.cols());
  check.f64_vector("norm", norm, x.rows());
  const DeviceScope scope(*this);
  do_normalize_rows(y, norm, x);
}

void Ops::golub_kahan_left(Tensor u, Tensor alpha, Tensor jv, Tensor beta, std::int64_t step) {
  const OperandCheck check("golub_kahan_left", "u", u);
  check.matrix("u", u, u.rows(), u.cols());
  check.matrix("jv", jv, u.rows(), u.cols());
  check.present("alpha", alpha);
  check.f64_matrix("alpha", alpha, u.rows(), alpha.cols());
  check.f64_matrix("beta", beta, u.rows(), alpha.cols());
  check.range("step", static_cast<double>(step), 0, static_cast<double>(alpha.cols() - 1));
  check.distinct("u", u, "jv", jv);
  const DeviceScope scope(*this);
  do_golub_kahan_left(u, alpha, jv, beta, step);
}

void Ops::golub_kahan_right(Tensor basis, Tensor beta, Tensor w, Tensor alpha, std::int64_t step) {
  const OperandCheck check("golub_kahan_right", "w", w);
  check.matrix("w", w, w.rows(), w.cols());
  check.present("alpha", alpha);
  check.f64_matrix("alpha", alpha, w.rows(), alpha.cols());
  check.f64_matrix("beta", beta, w.rows(), alpha.cols());
  check.matrix("basis", basis, w.rows() * alpha.cols(), w.cols());
  check.range("step", static_cast<double>(step), 0, static_cast<double>(alpha.cols() - 1));
  check.distinct("basis", basis, "w", w);
  const DeviceScope scope(*this);
  do_golub_kahan_right(basis, beta, w, alpha, step);
}

void Ops::bidiagonal(Tensor a, Tensor alpha, Tensor beta) {
  const OperandCheck check("bidiagonal");
  check.f64_squares("a", a);
  check.present("alpha", alpha);
  check.f64_matrix("alpha", alpha, a.extent(0), alpha.cols());
  check.f64_matrix("beta", beta, a.extent(0), alpha.cols());
  if (a.extent(1) < 1 || a.extent(1) > alpha.cols())
    check.fail("a is " + a.describe() + "; its blocks must have 1 to " + std::to_string(alpha.cols()) + " rows");
  const DeviceScope scope(*this);
  do_bidiagonal(a, alpha, beta);
}

void Ops::quadrature_rules(Tensor nodes, Tensor shares, Tensor alpha, Tensor beta, Tensor lower, Tensor workspace) {
  const OperandCheck check("quadrature_rules");
  check.present("alpha", alpha);
  const std::int64_t m = alpha.rows(), most = alpha.cols() + (lower.absent() ? 0 : 1);
  check.f64_matrix("alpha", alpha, m, alpha.cols());
  check.f64_matrix("beta", beta, m, alpha.cols());
  check.present("nodes", nodes);
  check.f64_matrix("nodes", nodes, nodes.rows(), nodes.cols());
  check.f64_matrix("shares", shares, nodes.rows(), nodes.cols());
  check.contiguous("nodes", nodes);
  check.contiguous("shares", shares);
  check.f64_vector("workspace", workspace, nodes.size());
  if (nodes.rows() < 1 || nodes.rows() > most)
    check.fail("nodes is " + nodes.describe() + "; rules must have 1 to " + std::to_string(most) + " nodes");
  if (m == 0 ? nodes.cols() != 0 : nodes.cols() == 0 || nodes.cols() % m != 0 || nodes.cols() / m > nodes.rows())
    check.fail("nodes is " + nodes.describe() + "; it must have a column for each of 1 to " +
               std::to_string(nodes.rows()) + " rules of " + std::to_string(m) + " rows");
  if (!lower.absent()) {
    check.f64_vector("lower", lower, lower.rows());
    if (m > 0) check.divides("rows of lower", lower.rows(), "rows of alpha", m);
    if (nodes.cols() != m) check.fail("lower is " + lower.describe() + " but there is more than one rule per row");
  }
  check.distinct("nodes", nodes, "shares", shares);
  check.distinct("nodes", nodes, "workspace", workspace);
  check.distinct("shares", shares, "workspace", workspace);
  const DeviceScope scope(*this);
  do_quadrature_rules(nodes, shares, alpha, beta, lower, workspace);
}

namespace {

void check_function(const OperandCheck& check, const SpectralFunction& f, double tolerance) {
  if (f.kind != SpectralFunction::Kind::logarithm && f.kind != SpectralFunction::Kind::power)
    check.fail("spectral function " + std::to_string(static_cast<int>(f.kind)) + " is not known");
  check.finite("exponent", f.exponent);
  check.range("tolerance", tolerance, 0, 1);
}

}  // namespace

void Ops::quadrature(Tensor sum, Tensor zeros, Tensor nodes, Tensor shares, Tensor norm, Tensor weight,
                     const SpectralFunction& f, double tolerance) {
  const OperandCheck check("quadrature");
  check.present("norm", norm);
  const std::int64_t m = norm.rows();
  check.f64_vector("norm", norm, m);
  check.f64_vector("sum", sum, m);
  check.f64_vector("zeros", zeros, m);
  const std::int64_t rules = weight.absent() ? 1 : weight.rows();
  if (!weight.absent()) check.f64_matrix("weight", weight, rules, m);
  check.present("nodes", nodes);
  check.f64_matrix("nodes", nodes, nodes.rows(), rules * m);
  check.f64_matrix("shares", shares, nodes.rows(), rules * m);
  check.contiguous("nodes", nodes);
  check.contiguous("shares", shares);
  check.at_least("rows of nodes", nodes.rows(), 1);
  check_function(check, f, tolerance);
  const DeviceScope scope(*this);
  do_quadrature(sum, zeros, nodes, shares, norm, weight, f, tolerance);
}

void Ops::spectral_coefficients(Tensor coefficients, Tensor values, Tensor vectors, Tensor norm,
                                const SpectralFunction& f, double tolerance) {
  const OperandCheck check("spectral_coefficients", "coefficients", coefficients);
  check.f64_squares("vectors", vectors);
  const std::int64_t m = vectors.extent(0), k = vectors.extent(1);
  check.f64_matrix("values", values, m, k);
  check.matrix("coefficients", coefficients, m, coefficients.cols());
  if (k < 1 || k > coefficients.cols())
    check.fail("vectors is " + vectors.describe() + "; its blocks must have 1 to " +
               std::to_string(coefficients.cols()) + " rows");
  check.f64_vector("norm", norm, m);
  check_function(check, f, tolerance);
  const DeviceScope scope(*this);
  do_spectral_coefficients(coefficients, values, vectors, norm, f, tolerance);
}

void Ops::singular_certificate(Tensor h, Tensor scale, Tensor mu, Tensor distance, Tensor w, Tensor v, Tensor jv,
                               double dimension) {
  const OperandCheck check("singular_certificate", "v", v);
  check.matrix("v", v, v.rows(), v.cols());
  check.matrix("w", w, v.rows(), v.cols());
  check.present("jv", jv);
  check.matrix("jv", jv, v.rows(), jv.cols());
  check.f64_vector("h", h, v.rows());
  check.vector("scale", scale, v.rows());
  check.f64_vector("mu", mu, v.rows());
  check.f64_vector("distance", distance, v.rows());
  check.positive("dimension", dimension);
  const DeviceScope scope(*this);
  do_singular_certificate(h, scale, mu, distance, w, v, jv, dimension);
}

void Ops::conjugate_gradient_step(Tensor x, Tensor r, Tensor p, Tensor residual, Tensor w, Tensor jp, Tensor norm,
                                  double tolerance, Tensor energy) {
  const OperandCheck check("conjugate_gradient_step", "x", x);
  const std::int64_t m = x.rows(), d = x.cols();
  check.matrix("x", x, m, d);
  check.matrix("r", r, m, d);
  check.matrix("p", p, m, d);
  check.matrix("w", w, m, d);
  check.present("jp", jp);
  check.matrix("jp", jp, m, jp.cols());
  check.f64_vector("residual", residual, m);
  check.f64_vector("norm", norm, m);
  check.range("tolerance", tolerance, 0, 1);
  check.distinct("x", x, "r", r);
  check.distinct("x", x, "p", p);
  check.distinct("r", r, "p", p);
  check.distinct("r", r, "w", w);
  if (!energy.absent()) check.f64_vector("energy", energy, m);
  const DeviceScope scope(*this);
  do_conjugate_gradient_step(x, r, p, residual, w, jp, norm, tolerance, energy);
}

void Ops::conjugate_direction(Tensor p, Tensor energy, Tensor z, Tensor r) {
  const OperandCheck check("conjugate_direction", "p", p);
  check.matrix("p", p, p.rows(), p.cols());
  check.matrix("z", z, p.rows(), p.cols());
  check.matrix("r", r, p.rows(), p.cols());
  check.f64_vector("energy", energy, p.rows());
  check.distinct("p", p, "z", z);
  check.distinct("p", p, "r", r);
  const DeviceScope scope(*this);
  do_conjugate_direction(p, energy, z, r);
}

void Ops::random_signs(Tensor y, const RandomKey& key, const std::int64_t* counter) {
  const OperandCheck check("random_signs", "y", y);
  check.contiguous("y", y);
  check.matrix("y", y, y.rows(), y.cols());
  check.key(key, counter);
  const DeviceScope scope(*this);
  do_random_signs(y, key, counter);
}

void Ops::project_rows(Tensor x, Tensor q, std::int64_t samples) {
  const OperandCheck check("project_rows", "x", x);
  check.present("q", q);
  check.at_least("samples", samples, 0);
  check.matrix("x", x, x.rows(), x.cols());
  check.matrix("q", q, q.rows(), x.cols());
  if (samples == 0 && x.rows() + q.rows() > 0) check.fail("samples is 0 but there are rows");
  if (samples > 0) {
    check.divides("samples", samples, "rows of x", x.rows());
    check.divides("samples", samples, "rows of q", q.rows());
  }
  check.distinct("x", x, "q", q);
  const DeviceScope scope(*this);
  do_project_rows(x, q, samples);
}

void Ops::clear_rows(Tensor y, Tensor marks) {
  const OperandCheck check("clear_rows", "y", y);
  check.matrix("y", y, y.rows(), y.cols());
  check.present("marks", marks);
  check.f64_vector("marks", marks, marks.rows());
  if (marks.rows() == 0 ? y.rows() != 0 : y.rows() % marks.rows() != 0)
    check.fail("y is " + y.describe() + "; it must hold the same number of rows for each of " +
               std::to_string(marks.rows()) + " marks");
  const DeviceScope scope(*this);
  do_clear_rows(y, marks);
}

void Ops::probe_mean(Tensor value, Tensor error, Tensor samples, double correction) {
  const OperandCheck check("probe_mean");
  check.present("value", value);
  check.present("samples", samples);
  check.f64_vector("value", value, value.rows());
  check.f64_vector("error", error, value.rows());
  check.f64_vector("samples", samples, samples.rows());
  if (value.rows() == 0 ? samples.rows() != 0 : samples.rows() == 0 || samples.rows() % value.rows() != 0)
    check.fail("samples is " + samples.describe() +
               "; it must hold the same number of probes, 1 or more, for each of " + std::to_string(value.rows()) +
               " values");
  check.range("correction", correction, 0, 1);
  const DeviceScope scope(*this);
  do_probe_mean(value, error, samples, correction);
}

void Ops::roulette_weights(Tensor weights, std::int64_t certain, double survival, const RandomKey& key,
                           const std::int64_t* counter) {
  const OperandCheck check("roulette_weights");
  check.present("weights", weights);
  check.f64_matrix("weights", weights, weights.rows(), weights.cols());
  check.at_least("certain", certain, 0);
  check.range("survival", survival, 0x1p-20, 1);
  check.key(key, counter);
  const DeviceScope scope(*this);
  do_roulette_weights(weights, certain, survival, key, counter);
}

void Ops::leave_one_out_trace(Tensor value, Tensor error, Tensor gram_image, Tensor gram_basis, Tensor inverse,
                              Tensor forms) {
  const OperandCheck check("leave_one_out_trace");
  check.f64_squares("inverse", inverse);
  const std::int64_t n = inverse.extent(0), r = inverse.extent(1);
  if (n > 0) check.at_least("R", r, 1);
  check.f64_squares("gram_image", gram_image, n, 2 * r);
  check.f64_squares("gram_basis", gram_basis, n, 2 * r);
  check.f64_vector("value", value, n);
  check.f64_vector("error", error, n);
  if (!forms.absent()) check.f64_vector("forms", forms, n * r);
  const DeviceScope scope(*this);
  do_leave_one_out_trace(value, error, gram_image, gram_basis, inverse, forms);
}

}  // namespace bracket
