// The direction of every certified value over 10,000 random operators in each precision.
#include <map>
#include <optional>

#include "bracket/singular_values.h"
#include "bracket/trace_estimators.h"
#include "tests/jacobian_fixture.h"

namespace bracket::test {
namespace {

constexpr std::int64_t kOperatorsPerShape = 209;
constexpr std::int64_t kMostInputs = 12;
constexpr double kQrCondition = 1e6;

struct Shape {
  std::int64_t d, D;
};

/// 48 of them, 10,032 operators.
std::vector<Shape> shapes() {
  std::vector<Shape> list;
  for (std::int64_t d = 1; d <= kMostInputs; ++d)
    for (const std::int64_t D : {d, d + 1, 2 * d, 3 * d}) list.push_back({d, D});
  return list;
}

/// Condition 1 to 1e6, size 1e-2 to 1e2; simple, multiple and clustered singular values, one far below or above the
/// others; in turn by `kind`, one per branch.
MatrixXd random_operator(const Shape& shape, std::int64_t kind, std::mt19937_64& engine) {
  std::uniform_real_distribution<double> uniform(0, 1);
  const auto& [d, D] = shape;
  const double condition = std::pow(10.0, 6 * uniform(engine)), size = std::pow(10.0, 4 * uniform(engine) - 2);
  if (kind == 0) {  // columns of different lengths
    MatrixXd j = normal_matrix(D, d, engine);
    for (std::int64_t k = 0; k < d; ++k) j.col(k) *= std::pow(10.0, -3 * uniform(engine));
    return size * j;
  }
  if (kind == 1) {  // multiple to the last bit
    MatrixXd j = MatrixXd::Zero(D, d);
    for (std::int64_t k = 0; k < d; ++k) j((k + 1) % D, k) = std::exp2(uniform(engine) < 0.5 ? 0 : 15);
    return j;
  }
  std::vector<double> s = geometric_spectrum(d, size, condition);
  for (std::size_t k = 0; k < s.size() && kind > 2; ++k) {
    const bool first = k == 0, last = k + 1 == s.size(), low = uniform(engine) < 0.5;
    if (kind == 3) s[k] = first || last ? s[k] : size * std::pow(condition, uniform(engine));
    if (kind == 4) s[k] = low ? size : size * condition;
    if (kind == 5) s[k] = size * (low ? 1 : condition) * (1 + std::pow(10.0, -2 - 8 * uniform(engine)));
    if (kind == 6) s[k] = size * (first ? 1 : condition * (1 + uniform(engine)));
    if (kind == 7) s[k] = size * (last ? condition : 1 + uniform(engine));
  }
  return with_singular_values(D, s, engine);
}
constexpr std::int64_t kKinds = 8;

/// A function and the side that Gauss's rule takes by the sign of its even derivatives; Gauss-Radau takes the other.
struct Rule {
  SpectralFunction f;
  bool gauss_above;
};
constexpr Rule kLog{kLogarithm, true};
constexpr Rule kPowers[] = {{power_function(-1), false},
                            {power_function(0.5), true},
                            {power_function(-0.5), false},
                            {power_function(1.5), false}};

double value_of(const SpectralFunction& f, double x) {
  return f.kind == SpectralFunction::Kind::logarithm ? std::log(x) : std::pow(x, f.exponent);
}

/// What rounding may do, from the reference's spectrum. u: of the operator's precision, w = 2^-53: of the sums, which
/// are in double. Products are computed in double and rounded once, columns J e_k not at all, so that what is judged is
/// the estimators' own rounding.
class Slack {
 public:
  Slack(const Shape& shape, DType dtype, const VectorXd& s)
      : d_(static_cast<double>(shape.d)), D_(static_cast<double>(shape.D)), u_(unit_roundoff(dtype)), s_(s) {
    frobenius_ = s.norm();
  }

  /// Gram matrix and Cholesky factor: |dG_ij| <= (D + d + 2) w |a_i| |a_j| (Higham 2002, 3.5 and 10.3), hence |dG|_F <=
  /// (D + d + 2) w |J|_F^2, and 1/2 |tr G^-1 dG| by Cauchy and Schwarz. Beyond qr_condition Householder's QR moves J by
  /// 2 (D + d) w |J|_F (19.4, whose D d is its worst case) and log s_k by that over s_k.
  double volume() const {
    if (by_qr()) return 2 * (D_ + d_) * kW * frobenius_ * s_.cwiseInverse().sum() + logs();
    const double t = gram() * std::sqrt(s_.array().pow(-4).sum());
    return 0.5 * t / (1 - t) + logs();
  }
  /// Of s_k: |dG|, or the change of J, and d w s_d for the singular values of the factor.
  double value(std::int64_t k) const {
    const double factored = (2 * (D_ + d_) + 4 * d_) * kW * frobenius_;
    return by_qr() ? factored : factored + std::min(gram() / s_(k), std::sqrt(gram()));
  }
  /// mu^2 - s_1^2 = sum (s_k^2 - s_1^2) t_k^2 for a v off v_1 by t: storage makes |t|^2 <= u^2, so that s_d^2 u^2 comes
  /// in; dG rotates v by |dG| / (s_k^2 - s_1^2), and sum min(gap, dG^2 / gap) <= d |dG|. QR: dG = 4 (D + d) w |J|_F^2.
  double smallest_above() const {
    return d_ * std::log1p((square(top() * u_) + 4 * d_ * gram()) / square(s_(0))) / 2 + smallest_below();
  }
  double smallest_below() const { return d_ * quotient(s_(0)) / s_(0) + logs(); }

  /// Of mu = |J v| / |v| as computed: J v to d w |J|_F in sums and to u in its elements, two norms and their quotient.
  double quotient(double mu) const { return d_ * kW * frobenius_ + 4 * u_ * mu; }

  /// Of value k > 0 of a block. Only the eigenvalues of V^T A V bound those of A one by one: where V is not
  /// orthonormal, or not of Ritz vectors, by e, mu_k^2 moves by e s_d^2. V is made orthonormal at the end, turned to
  /// Ritz vectors and stored, J V likewise: two roundings of four directions each in both, e <= 16 u twice.
  double ritz(std::int64_t k) const {
    return s_(k) - std::sqrt(std::max(0.0, square(s_(k)) - 32 * u_ * square(top()))) + quotient(s_(k));
  }

  /// The residual r = |J^T u - mu v|: rounding J v moves J^T u by u s_d, rounding the product by u (mu + r), mu^2 by
  /// 2 u mu, sums by (d + D) w |J|_F; mu and r are s_d at most. The bound grows at most 1.21 times as r, where its two
  /// branches meet.
  double distance(double mu) const { return 1.21 * (5 * u_ * top() + (d_ + D_) * kW * frobenius_) + quotient(mu); }

  /// Golub-Kahan is backward stable (Barlow 2013): B is that of J + dJ, |dJ| <= e s_1. Its steps round J v, u, J^T u
  /// and v, unit vectors times |J| at most, and sum d + D products. None: rounding may hide s_1.
  std::optional<double> relative_change() const {
    const double e = (8 * u_ + 2 * (d_ + D_) * kW) * frobenius_ / s_(0);
    return e < 0.5 ? std::optional(e) : std::nullopt;
  }
  /// With (1 - e)^2 A <= A + dA <= (1 + e)^2 A. log and powers up to 1 are monotone in this order (Loewner), so every
  /// v^T f v moves by no more than f does between the two. The power 3/2 has an operator monotone derivative: |df| <=
  /// f'(s_d^2) |dA|. Probes are orthonormal to 2 u sqrt(d), a share of all |f(s_k^2)|.
  double rule(const SpectralFunction& f, double e) const {
    double sizes = 0;
    for (const double s : s_) sizes += std::abs(value_of(f, s * s));
    const double probes = 2 * u_ * std::sqrt(d_) * sizes + 2 * logs();
    if (f.kind == SpectralFunction::Kind::logarithm) return probes - 2 * d_ * std::log1p(-e);
    if (f.exponent > 1) return probes + d_ * f.exponent * std::pow(top(), 2 * f.exponent) * (2 * e * s_(0) / top());
    return probes + sizes * (std::pow(1 - e, -2 * std::abs(f.exponent)) - 1);
  }

 private:
  static constexpr double kW = 0x1p-53;
  static double square(double x) { return x * x; }
  double top() const { return s_(s_.size() - 1); }
  /// Logarithms, their sum, and those of the reference.
  double logs() const { return (d_ + 2) * kW * (d_ + s_.array().log().abs().sum()); }
  bool by_qr() const { return frobenius_ * s_.cwiseInverse().norm() > 1.1 * kQrCondition; }
  double gram() const { return (D_ + d_ + 2) * kW * square(frobenius_); }

  double d_, D_, u_;
  const VectorXd& s_;
  double frobenius_ = 0;
};

struct Tally {
  std::int64_t judged = 0;
  std::int64_t apart = 0;  ///< by more than the slack: what holds is the bound and not rounding
  double widest = -kInfinity;
};

class Certificates {
 public:
  Certificates(Context& context, DType dtype) : context_(context), dtype_(dtype) {}

  void judge_shape(std::int64_t index, const Shape& shape) {
    shape_ = shape;
    index_ = index;
    auto engine = test_engine(static_cast<std::uint64_t>(1000 * shape.d + 10 * shape.D));
    matrices_.clear();
    spectra_.clear();
    ends_.clear();
    for (std::int64_t i = 0; i < kOperatorsPerShape; ++i) {
      matrices_.push_back(rounded(random_operator(shape, i % kKinds, engine), dtype_));
      spectra_.push_back(extended_singular_values_of(matrices_.back()));
      const double s = spectra_.back()(0), change = slack(i).relative_change().value_or(0);
      ends_.push_back(0.9999 * std::pow((1 - change) * s, 2));  // as near to s_1^2 as is certain
    }
    const CallbackJacobian jacobian = matrix_jacobian(matrices_, dtype_);
    judge_exact(jacobian);
    judge_golub_kahan(jacobian);
    for (std::int64_t block = 1; block <= std::min<std::int64_t>(4, shape.d); ++block) judge_lobpcg(jacobian, block);
    judge_rule(jacobian, kLog);
    judge_rule(jacobian, kPowers[(index + index / 16) % std::ssize(kPowers)]);
  }

  const std::map<std::string, Tally>& tallies() const { return tallies_; }

 private:
  static constexpr std::int64_t n = kOperatorsPerShape;

  Slack slack(std::int64_t i) const { return {shape_, dtype_, spectrum(i)}; }
  const VectorXd& spectrum(std::int64_t i) const { return spectra_[static_cast<std::size_t>(i)]; }
  double from_spectrum(std::int64_t i, double value) const { return (spectrum(i).array() - value).abs().minCoeff(); }

  void judge(const std::string& what, double low, double high, double slack, std::int64_t i) {
    Tally& tally = tallies_[what];
    ++tally.judged;
    if (high - low > slack) ++tally.apart;
    tally.widest = std::max(tally.widest, (low - high) / slack);
    if (low <= high + slack) return;
    ADD_FAILURE() << what << ": " << exact_text(low) << " > " << exact_text(high) << ", slack " << slack << "; d "
                  << shape_.d << ", D " << shape_.D << ", operator " << i << " of kind " << i % kKinds << ", condition "
                  << spectrum(i)(shape_.d - 1) / spectrum(i)(0);
  }

  /// 1 to d, another for every shape with the same d.
  std::int64_t steps(std::int64_t turn) const {
    const std::int64_t d = shape_.d, choices[] = {1, (d + 2) / 3, std::max<std::int64_t>(d - 1, 1), d};
    return choices[(index_ + d + turn) % 4];
  }

  HostMatrix read(Ops& o, const Tensor& x) { return download_from(context_, o, x); }

  Tensor start(Ops& o, Arena& arena, std::int64_t block) const {
    const Tensor v = arena.allocate(dtype_, {n * block, shape_.d});
    write_values(o, v, random_matrix(n * block, shape_.d, 3 + static_cast<std::uint64_t>(index_)).values);
    return v;
  }

  void judge_exact(const JacobianOperator& jacobian) {
    struct Values {
      HostMatrix volume, spectrum, smallest;
    };
    const Values got = planned<Values>(context_, [&](Ops& o, Arena& arena) {
      const ExactOptions options{true, false, kQrCondition, 0};
      const ExactEstimate whole = exact_log_volume(o, arena, jacobian, options);
      const ExactEstimate smallest = exact_smallest_volume(o, arena, jacobian, options);
      EXPECT_EQ(whole.certificate, Certificate::exact);
      EXPECT_EQ(smallest.certificate, Certificate::certified_lower);
      EXPECT_EQ(whole.deficient + whole.not_finite, 0);
      return Values{read(o, whole.value), read(o, whole.spectrum), read(o, smallest.value)};
    });
    for (std::int64_t i = 0; i < n; ++i) {
      const VectorXd& s = spectrum(i);
      const Slack allowed = slack(i);
      const double h = s.array().log().sum(), lowest = static_cast<double>(shape_.d) * std::log(s(0));
      judge("exact, above h", got.volume(i, 0), h, allowed.volume(), i);
      judge("exact, below h", h, got.volume(i, 0), allowed.volume(), i);
      for (std::int64_t k = 0; k < shape_.d; ++k)
        judge("exact, spectrum", std::abs(got.spectrum(i, k) - s(k)), 0, allowed.value(k), i);
      judge("d log s_1, above h", got.smallest(i, 0), h, allowed.smallest_above(), i);
      judge("d log s_1, above itself", got.smallest(i, 0), lowest, allowed.smallest_above(), i);
      judge("d log s_1, below itself", lowest, got.smallest(i, 0), allowed.smallest_below(), i);
    }
  }

  void judge_golub_kahan(const JacobianOperator& jacobian) {
    struct Values {
      HostMatrix smallest, distance, largest, largest_distance;
    };
    const Values got = planned<Values>(context_, [&](Ops& o, Arena& arena) {
      const GolubKahanEstimate e = golub_kahan_extremes(o, arena, jacobian, start(o, arena, 1), {steps(1), 0});
      EXPECT_EQ(e.certificate, Certificate::optimistic);
      return Values{read(o, e.singular_value), read(o, e.distance), read(o, e.largest), read(o, e.largest_distance)};
    });
    for (std::int64_t i = 0; i < n; ++i) {
      const VectorXd& s = spectrum(i);
      const Slack allowed = slack(i);
      const double low = got.smallest(i, 0), high = got.largest(i, 0);
      judge("Golub-Kahan, smallest below s_1", s(0), low, allowed.quotient(low), i);
      judge("Golub-Kahan, largest above s_d", high, s(shape_.d - 1), allowed.quotient(high), i);
      judge("Golub-Kahan, distance", from_spectrum(i, low), got.distance(i, 0), allowed.distance(low), i);
      judge("Golub-Kahan, largest distance", from_spectrum(i, high), got.largest_distance(i, 0), allowed.distance(high),
            i);
    }
  }

  void judge_lobpcg(const JacobianOperator& jacobian, std::int64_t block) {
    struct Values {
      HostMatrix ritz, distances;
    };
    const Values got = planned<Values>(context_, [&](Ops& o, Arena& arena) {
      LobpcgOptions options;
      options.steps = 1 + index_ % 4;
      options.block = block;
      const LobpcgEstimate e = lobpcg_smallest(o, arena, jacobian, start(o, arena, block), options);
      EXPECT_EQ(e.certificate, Certificate::optimistic);
      return Values{read(o, e.ritz_values), read(o, e.ritz_distances)};
    });
    const std::string name = "LOBPCG of " + std::to_string(block);
    for (std::int64_t i = 0; i < n; ++i) {
      const Slack allowed = slack(i);
      for (std::int64_t k = 0; k < block; ++k) {
        const double value = got.ritz(i, k);
        judge(name + ", value k below s_k", spectrum(i)(k), value, k == 0 ? allowed.quotient(value) : allowed.ritz(k),
              i);
        judge(name + ", distance", from_spectrum(i, value), got.distances(i, k), allowed.distance(value), i);
      }
    }
  }

  /// A complete set of probes, 1 to d steps.
  void judge_rule(const JacobianOperator& jacobian, const Rule& rule) {
    const std::int64_t taken = steps(0);
    struct Values {
      HostMatrix gauss, radau;
    };
    const auto side = [&](bool above) {
      return taken == shape_.d ? Certificate::exact
                               : (above ? Certificate::certified_upper : Certificate::certified_lower);
    };
    const Values got = planned<Values>(context_, [&](Ops& o, Arena& arena) {
      const Probes probes = make_probes(o, arena, jacobian, {ProbeKind::orthogonal, shape_.d, 4});
      const Tensor ends = arena.allocate(DType::f64, {n});
      write_values(o, ends, ends_);
      const JacobianEstimate gauss = trace_of_function(o, arena, jacobian, rule.f, probes, {taken, {}});
      const JacobianEstimate radau = trace_of_function(o, arena, jacobian, rule.f, probes, {taken, ends});
      EXPECT_EQ(gauss.certificate, side(rule.gauss_above));
      EXPECT_EQ(radau.certificate, side(!rule.gauss_above));
      return Values{read(o, gauss.value), read(o, radau.value)};
    });
    const std::string of = rule.f.kind == SpectralFunction::Kind::logarithm
                               ? "log"
                               : "x^" + std::to_string(rule.f.exponent).substr(0, rule.f.exponent < 0 ? 4 : 3);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::optional<double> change = slack(i).relative_change();
      if (!change) continue;
      double exact = 0;
      for (const double s : spectrum(i)) exact += value_of(rule.f, s * s);
      const double allowed = slack(i).rule(rule.f, *change), gauss = got.gauss(i, 0), radau = got.radau(i, 0);
      const double above = rule.gauss_above ? gauss : radau, below = rule.gauss_above ? radau : gauss;
      judge("upper rule of " + of, exact, above, allowed, i);
      judge("lower rule of " + of, below, exact, allowed, i);
      if (taken < shape_.d) continue;
      judge("all steps of " + of, std::abs(gauss - exact), 0, allowed, i);
    }
  }

  Context& context_;
  DType dtype_;
  Shape shape_{};
  std::int64_t index_ = 0;
  std::vector<MatrixXd> matrices_;
  std::vector<VectorXd> spectra_;
  std::vector<double> ends_;
  std::map<std::string, Tally> tallies_;
};

class JacobianCertificates : public ::testing::TestWithParam<DType> {};

TEST_P(JacobianCertificates, HoldForTenThousandRandomOperators) {
  const TestDevice device("cpu");
  Certificates certificates(device.context(), GetParam());
  std::int64_t index = 0;
  for (const Shape& shape : shapes()) certificates.judge_shape(index++, shape);
  EXPECT_GE(index * kOperatorsPerShape, 10000);
  for (const auto& [what, tally] : certificates.tallies()) {
    RecordProperty(what, std::to_string(tally.widest) + " of the slack, " + std::to_string(tally.apart) + " apart");
    const bool equality = what.starts_with("exact") || what.starts_with("all steps") || what.ends_with("itself");
    if (equality) continue;  // judged from both sides: nothing may lie apart
    EXPECT_GE(tally.apart, tally.judged / 20) << what << " was not put to the test";
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, JacobianCertificates, ::testing::Values(DType::f32, DType::f64),
                         [](const auto& precision) { return std::string(dtype_name(precision.param)); });

}  // namespace
}  // namespace bracket::test
