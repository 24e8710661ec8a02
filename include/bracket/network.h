// Networks: a specification that can be written as JSON, a structure made from it, and passes over stacked rows.
//
// Images are rows too (ImageShape). Layers for images know the shape; flatten and unflatten only say where PyTorch
// changes its view, no value moves. Files hold tensors in PyTorch's order, memory in that of the rows.
//
// A network holds no memory. Parameters and buffers are flat blocks (ParameterSet), so a training copy and an averaged
// copy share one Network; what a pass computed lives in the arena that the pass was given.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bracket/activation.h"
#include "bracket/image_shape.h"
#include "bracket/math_mode.h"
#include "bracket/memory.h"
#include "bracket/random.h"
#include "bracket/tensor.h"

namespace bracket {

class Context;
class LayerChain;
class Ops;

/// y = x W^T + b. Weights start uniform in +-weight_gain / sqrt(fan_in), biases in +-bias_bound (negative: the same
/// 1 / sqrt(fan_in) as PyTorch's default), or W at the identity.
struct LinearSpec {
  std::int64_t features = 0;  ///< output columns
  bool bias = true;
  bool spectral_norm =
      false;  ///< W / sigma_max(W) by one power iteration per training pass, as PyTorch's parametrization
  double weight_gain = 1;
  double bias_bound = -1;
  bool identity_start = false;
};

struct ActivationSpec {
  Activation function = Activation::silu;
  double negative_slope = 0.01;  ///< leaky_relu
  double initial_slope = 0.25;   ///< prelu: start of its one learnt slope
};

/// Batch statistics in training passes, running statistics in inference passes: PyTorch's BatchNorm1d, and on images
/// its BatchNorm2d, one pair of statistics per channel. Scales start at 1, or normal around 1 with `deviation`.
struct BatchNormSpec {
  double momentum = 0.1;
  double epsilon = 1e-5;
  double deviation = 0;
};

/// Convolution of images with square kernels and zero padding: (size + 2 padding - kernel) / stride + 1 pixels,
/// rounded down, per side. Weights start uniform in +-1 / sqrt(inputs kernel^2) as PyTorch's do, or normal with
/// `deviation` where that is positive; biases start uniform in either case.
struct Conv2dSpec {
  std::int64_t channels = 0;  ///< output channels
  std::int64_t kernel = 3;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  bool bias = true;
  bool spectral_norm = false;  ///< of the weight as a matrix [channels, inputs kernel^2]
  double deviation = 0;
};

/// The adjoint of a convolution: (size - 1) stride - 2 padding + kernel + output_padding pixels per side. Start as in
/// Conv2dSpec, with +-1 / sqrt(channels kernel^2) as PyTorch computes it.
struct ConvTranspose2dSpec {
  std::int64_t channels = 0;  ///< output channels
  std::int64_t kernel = 3;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t output_padding = 0;  ///< below stride
  bool bias = true;
  /// Of the weight as a matrix [channels, inputs kernel^2]. Each iteration updates v before u, PyTorch u before v.
  bool spectral_norm = false;
  double deviation = 0;
};

/// Mean, sum or largest value of windows of window x window pixels that tile the image; a max pool's are 16 x 16 at
/// most.
struct AveragePoolSpec {
  std::int64_t window = 2;
};
struct SumPoolSpec {
  std::int64_t window = 2;
};
struct MaxPoolSpec {
  std::int64_t window = 2;
};

/// Every pixel becomes factor x factor equal ones.
struct UpsampleSpec {
  std::int64_t factor = 2;
};

/// The image becomes a row that a linear layer reads. In files the columns of that layer are in PyTorch's order
/// (channel, y, x).
struct FlattenSpec {};

/// The row that a linear layer (and perhaps an activation behind it) made becomes an image. In files the rows of that
/// layer are in PyTorch's order (channel, y, x).
struct UnflattenSpec {
  std::int64_t channels = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
};

struct LayerSpec;

/// y = body(x) + skip(x); an empty path is the identity. Names in files: "layers.2.body.1.weight".
struct ResidualSpec {
  std::vector<LayerSpec> body;
  std::vector<LayerSpec> skip;
};

/// Fixed map x scale + shift per column; holds a data set's standardisation inside the network.
struct AffineSpec {
  std::vector<double> scale;
  std::vector<double> shift;
};

/// [x, sin(B x), cos(B x)] with `frequencies` fixed rows of B drawn from N(0, deviation^2).
struct FourierFeaturesSpec {
  std::int64_t frequencies = 32;
  double deviation = 3;
};

/// Maps columns [active_first, active_first + active_count) through strictly increasing staircases whose parameters an
/// MLP reads off the remaining columns: the first or the last ones, and not all. Injective by construction. Formula:
/// `Staircase` in kernels/README.md. Starts close to the identity with knots spread over [-2, 2].
struct MonotoneCouplingSpec {
  std::int64_t active_first = 0;
  std::int64_t active_count = 1;
  std::int64_t knots = 12;
  std::vector<std::int64_t> hidden = {48, 48};  ///< SiLU layers of the conditioner
  double max_slope = 3;
  double max_height = 2;
};

/// As MonotoneCouplingSpec, with a monotone rational-quadratic spline per active column: `bins` pieces on [-bound,
/// bound], the identity outside (Durkan, Bekasov, Murray, Papamakarios, "Neural spline flows", 2019). Formula:
/// `RationalQuadratic` in kernels/README.md; with s = min_height and e = min_derivative <= s its slope is never below
/// s^2 e^3. Starts close to the identity.
struct RationalQuadraticCouplingSpec {
  std::int64_t active_first = 0;
  std::int64_t active_count = 1;
  std::int64_t bins = 8;
  std::vector<std::int64_t> hidden = {48, 48};  ///< SiLU layers of the conditioner
  double bound = 4;
  double min_width = 1e-3;  ///< of a bin, as a share of the interval; bins min_width < 1, as for the height
  double min_height = 1e-3;
  double min_derivative = 1e-3;  ///< slopes at the ends of bins lie between it and its reciprocal
};

/// A fixed permutation of the columns, log-volume 0: the order turned round, or one drawn at random from `seed` alone.
struct PermutationSpec {
  bool random = false;
  std::uint64_t seed = 0;
};

/// A fixed rotation y = x Q^T, log-volume 0 to rounding: Q orthogonal and uniformly distributed, a function of `seed`
/// alone (the Q of the QR factorisation of a matrix of normals, in double).
struct RotationSpec {
  std::uint64_t seed = 0;
};

/// Adds quadratic/2 |u|^2 + wall relu(|u| - radius)^2 to a scalar output; u is the output of layer `input_layer`
/// (-1: the network's input). Keeps exp(-E) normalisable.
struct ConfinementSpec {
  int input_layer = -1;
  double quadratic = 1;
  double wall = 0;
  double radius = 0;
};

using AnyLayerSpec = std::variant<LinearSpec, ActivationSpec, BatchNormSpec, AffineSpec, FourierFeaturesSpec,
                                  MonotoneCouplingSpec, ConfinementSpec, Conv2dSpec, ConvTranspose2dSpec,
                                  AveragePoolSpec, SumPoolSpec, MaxPoolSpec, UpsampleSpec, FlattenSpec, UnflattenSpec,
                                  ResidualSpec, RationalQuadraticCouplingSpec, PermutationSpec, RotationSpec>;

/// A class of its own, because a residual layer holds layers.
struct LayerSpec : AnyLayerSpec {
  using AnyLayerSpec::AnyLayerSpec;
};

struct NetworkSpec {
  std::int64_t input_size = 0;  ///< columns of an input row; image.size() where `image` is set
  std::vector<LayerSpec> layers;
  std::optional<ImageShape> image = {};  ///< the input rows are images
};

/// JSON: {"input_size": 2, "layers": [{"type": "linear", "features": 100}, ...]}, for images with "image": {"channels":
/// 3, "height": 32, "width": 32}. Keys are the field names above. Types, in the order of LayerSpec's alternatives:
/// linear, activation, batch_norm, affine, fourier_features, monotone_coupling, confinement, conv2d, conv_transpose2d,
/// average_pool, sum_pool, max_pool, upsample, flatten, unflatten, residual, rational_quadratic_coupling, permutation,
/// rotation.
std::string to_json(const NetworkSpec& spec);
/// Throws InvalidArgument for malformed JSON, a missing or unknown key or type (with the nearest name) or a bad value.
NetworkSpec network_spec_from_json(const std::string& text);

/// One axis of a tensor in a file: `extent` steps of `stride` elements in memory.
struct FileAxis {
  std::int64_t extent = 0;
  std::int64_t stride = 0;
};

/// How the elements of a tensor in a file, outermost axis first, lie in memory. No axes: both orders are the same.
struct FileOrder {
  std::vector<FileAxis> axes;
  bool same() const noexcept { return axes.empty(); }
  std::int64_t memory_element(std::int64_t file_element) const;
  std::int64_t file_element(std::int64_t memory_element) const;
};

/// One named tensor inside a flat block.
struct ParameterInfo {
  std::string name;                 ///< PyTorch's name, e.g. "layers.0.weight"
  std::vector<std::int64_t> shape;  ///< PyTorch's shape, e.g. (out, in) or (out, in, kernel, kernel)
  std::int64_t offset = 0;          ///< elements from the start of the block
  bool buffer = false;  ///< lives in the buffer block (running statistics, power-iteration vectors, constants)
  FileOrder order = {};
  std::int64_t size() const;
};

/// How passes are carried out: algebra that takes fewer operations for the same result, to rounding. Parameters, files
/// and starting values know nothing of it, and runs do not record it. What each does: "Algebra of a pass" in
/// kernels/README.md.
struct NetworkExecution {
  /// Nearest upsampling in front of a convolution of stride 1, or an average or sum pool behind one, becomes part of it
  /// wherever that takes fewer operations from 8 rows on; a 1 x 1 convolution changes places with them.
  bool merge_resampling = true;
  /// In inference passes BatchNorm directly behind a linear or (transposed) convolution layer becomes part of its
  /// weight and bias, where that touches fewer values for the rows that the pass is said to serve.
  bool fold_batch_norm = true;
  /// In inference passes a linear layer whose image goes straight into a (transposed) convolution becomes one map with
  /// it where that takes fewer operations for the rows that the pass is said to serve.
  bool compose_linear = true;
};

/// Two flat blocks with the layout of one Network, [value_elements()] and [buffer_elements()] of its dtype: what the
/// optimizer moves, and what it does not. The memory is the caller's, say two Buffers of the pool.
struct ParameterSet {
  Tensor values;
  Tensor buffers;
};

enum class PassMode : std::uint8_t {
  training,   ///< batch statistics, running statistics and power iterations move; primal rows only where BatchNorm is
              ///< used
  inference,  ///< everything fixed
};

/// What NetworkExecution makes of one pass for what it serves. `layers` merges resampling, `norm_folded` BatchNorm too.
/// `linear_composed` does both but where the convolution that a linear layer takes in would have merged with what is
/// behind it: a pool, and BatchNorm behind that, stay layers of their own.
///
/// The form, and with it the rounding of every result, depends on how many rows the pass serves: of rows that are
/// sent through a network in chunks, a shorter last one may come out of other arithmetic than the rest.
enum class PassForm : std::uint8_t { layers, norm_folded, linear_composed };

/// What a pass serves beside the forward call that makes it. Saying too little or too much costs time, nothing else.
struct FurtherUse {
  std::int64_t rows = 0;              ///< tangents and adjoints to go through it; those of a parameter_pass count twice
  std::int64_t parameter_passes = 1;  ///< reverse passes with parameter gradients
  /// The pass and tangents pushed through it carry log |det J| per row; needs Network::has_log_volume().
  bool log_volume = false;
};

/// Which primal rows of a pass carry how many tangents: tangent k of primal row first + i is tangent row i K + k.
struct TangentLayout {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t tangents = 0;  ///< K
  std::int64_t rows() const noexcept { return count * tangents; }
};

/// What a forward saved. Valid until its arena is rewound. It refers to the parameter blocks: until the reverse passes
/// are done these must not change, nor may a training pass of the same network move its buffers (running statistics,
/// power iterations) unless the network has neither.
struct PrimalPass {
  PassMode mode = PassMode::inference;
  std::int64_t rows = 0;
  ParameterSet parameters;
  Tensor input;
  std::vector<Tensor> slots;   ///< one per intermediate value, in layer order
  std::vector<Tensor> extras;  ///< batch statistics, weights as used, signs of what went into a relu
  PassForm form = PassForm::layers;
  Tensor log_volume = {};  ///< log |det J| [rows, 1] where FurtherUse asked for it, else absent
  Tensor output() const { return slots.back(); }
};

/// Tangents sent through a primal pass.
struct TangentPass {
  TangentLayout layout;
  Tensor input;
  std::vector<Tensor> slots;
  Tensor log_volume = {};  ///< its derivative along each tangent [layout.rows(), 1] where the primal pass carries it
  Tensor output() const { return slots.back(); }
};

/// Adjoints of the log-volumes of a pass, [rows, 1] and [layout.rows(), 1]. Absent: zero.
struct LogVolumeCotangents {
  Tensor primal = {};
  Tensor tangent = {};
};

/// What a reverse pass should return. Absent tensors are not computed.
struct ReverseRequest {
  Tensor grad_input = {};          ///< [rows, input_size], overwritten
  Tensor grad_tangent_input = {};  ///< [layout.rows(), input_size], overwritten; needs a tangent pass
  Tensor grad_parameters = {};     ///< flat block [value_elements()] of the network's dtype
  bool accumulate_parameters = false;
};

/// Math modes of a network's passes; absent: that of the context.
struct NetworkMath {
  std::optional<MathMode> passes;    ///< forward, evaluate, reverse; the fused forward takes its tangents along
  std::optional<MathMode> jacobian;  ///< push, push_through, pull_through: products with the Jacobian
};

class Network {
 public:
  /// Checks the specification; throws InvalidArgument naming the layer.
  Network(NetworkSpec spec, DType dtype, const NetworkExecution& execution = {});
  ~Network();
  Network(Network&&) noexcept;
  Network& operator=(Network&&) noexcept;

  const NetworkSpec& spec() const noexcept { return spec_; }
  DType dtype() const noexcept { return dtype_; }
  const NetworkExecution& execution() const noexcept { return execution_; }
  const NetworkMath& math() const noexcept { return math_; }
  void set_math(const NetworkMath& math) noexcept { math_ = math; }  ///< of the passes from now on
  std::int64_t input_size() const noexcept { return spec_.input_size; }
  std::int64_t output_size() const noexcept;
  /// The shape of an output row where it is an image.
  const std::optional<ImageShape>& output_image() const noexcept;
  /// Every parameter and buffer, in layer order.
  const std::vector<ParameterInfo>& parameters() const noexcept { return infos_; }
  std::int64_t value_elements() const noexcept {
    return value_elements_;
  }  ///< size of ParameterSet::values, padding included
  std::int64_t buffer_elements() const noexcept { return buffer_elements_; }  ///< size of ParameterSet::buffers
  std::int64_t values_per_row() const;   ///< activations that a pass saves per row, at most
  std::int64_t parameter_count() const;  ///< learnable scalars
  /// Multiplications and additions of the products with weights that one row takes, primal or tangent, forward or
  /// reverse without parameter gradients; taps on the zero padding of a convolution included, pointwise work excluded.
  /// As carried out where nothing is composed.
  std::int64_t flops_per_row() const noexcept;
  /// The same of the rows that `pass` serves.
  std::int64_t flops_per_row(const PrimalPass& pass) const noexcept;
  /// What a pass that composes (PassForm::linear_composed) takes once; parameter gradients take twice that once more.
  /// 0: no pass of this network does.
  std::int64_t composition_flops() const noexcept;
  bool has_batch_norm() const noexcept;
  /// Whether training passes move buffers: running statistics of BatchNorm, u and v of spectral normalisation.
  bool has_training_state() const noexcept;
  /// Whether every layer is linear but for kinks (relu, leaky_relu, max pooling): second derivatives vanish.
  bool piecewise_linear() const noexcept;
  /// True when every layer is injective whatever its parameters, matrices that do not lower the dimension and BatchNorm
  /// scales taken to have full rank (the set where they have not has measure zero): a lower bound is then a bound.
  bool injective_by_construction() const;
  /// Whether log |det J| comes with a forward pass: every layer has as many outputs as inputs and a Jacobian that is
  /// triangular, diagonal, orthogonal or one matrix for all rows.
  bool has_log_volume() const noexcept;

  /// Fills both blocks with starting values: a function of (seed, stream) alone, the same on every device.
  void initialize(Ops& ops, const ParameterSet& parameters, std::uint64_t seed, RandomStream stream) const;

  /// Sends x [rows, input_size] through the network. The form of the pass depends on rows and `further`; throws
  /// InvalidArgument where that is negative.
  void forward(Ops& ops, Arena& arena, PrimalPass& pass, const ParameterSet& parameters, Tensor x, PassMode mode,
               const FurtherUse& further = {}) const;
  /// The fused call: primal rows and their tangents together. `x` and `tangents` may be one block (tangents behind x),
  /// which halves the number of matrix products. Only inference mode where the network has BatchNorm.
  void forward(Ops& ops, Arena& arena, PrimalPass& pass, TangentPass& tangent_pass, const ParameterSet& parameters,
               Tensor x, Tensor tangents, const TangentLayout& layout, PassMode mode,
               const FurtherUse& further = {}) const;
  /// Sends tangents [layout.rows(), input_size] through an existing primal pass.
  void push(Ops& ops, Arena& arena, TangentPass& tangent_pass, const PrimalPass& pass, Tensor tangents,
            const TangentLayout& layout) const;
  /// The two for callers that want the output y alone ([rows or layout.rows(), output_size], no memory of x, tangents
  /// or the pass) and no reverse pass: values share memory once no later layer reads them, and all of it is given back.
  void evaluate(Ops& ops, Arena& arena, Tensor y, const ParameterSet& parameters, Tensor x, PassMode mode) const;
  void push_through(Ops& ops, Arena& arena, Tensor y, const PrimalPass& pass, Tensor tangents,
                    const TangentLayout& layout) const;
  /// The adjoint of push_through: x [layout.rows(), input_size] = J^T times cotangents [layout.rows(), output_size],
  /// row by row, J the Jacobian at the primal row that the layout says. No primal rows are computed again.
  void pull_through(Ops& ops, Arena& arena, Tensor x, const PrimalPass& pass, Tensor cotangents,
                    const TangentLayout& layout) const;
  /// The pass as it would be of rows [first, first + count) alone; it shares the memory. Throws InvalidArgument for
  /// rows that are not there and for a training pass with BatchNorm, whose rows belong together.
  PrimalPass slice(const PrimalPass& pass, std::int64_t first, std::int64_t count) const;
  /// The gradient of <tangent_cotangent, output tangents> in the parameters, of a piecewise-linear network (else
  /// InvalidArgument): as `reverse`, which would send a zero adjoint along for every primal row.
  void reverse_tangents(Ops& ops, Arena& arena, const PrimalPass& pass, const TangentPass& tangent_pass,
                        Tensor tangent_cotangent, Tensor grad_parameters, bool accumulate) const;
  /// Adjoints of <cotangent, output> + <tangent_cotangent, output tangents>: everything `request` names, second-order
  /// terms included. Either cotangent may be absent (zero). Cotangents are left as they are. Those of the log-volume,
  /// of passes that carry it, add <its cotangents, log-volumes and their tangents> to the sum.
  void reverse(Ops& ops, Arena& arena, const PrimalPass& pass, const TangentPass* tangent_pass, Tensor cotangent,
               Tensor tangent_cotangent, const ReverseRequest& request,
               const LogVolumeCotangents& log_volume = {}) const;

 private:
  const LayerChain& chain(PassForm form) const noexcept;
  PassForm form_for(PassMode mode, std::int64_t rows, const FurtherUse& further) const;
  void begin(Ops& ops, Arena& arena, PrimalPass& pass, const ParameterSet& parameters, Tensor x, PassMode mode,
             std::int64_t rows, const FurtherUse& further) const;
  void run(Ops& ops, Arena& arena, PrimalPass* pass, TangentPass* tangent_pass, const PrimalPass& primal) const;
  void pull(Ops& ops, Arena& arena, Tensor x, const PrimalPass& pass, const TangentPass* tangent_pass,
            Tensor cotangents, const TangentLayout& layout, const ReverseRequest& request) const;

  NetworkSpec spec_;
  DType dtype_;
  NetworkExecution execution_;
  NetworkMath math_;
  std::int64_t value_elements_ = 0;
  std::int64_t buffer_elements_ = 0;
  std::vector<ParameterInfo> infos_;
  std::unique_ptr<LayerChain> plain_;  // as specified: what the parameters and the structure are asked of
  // As carried out, with what resampling, BatchNorm and linear layers add in turn; null where one adds nothing.
  std::unique_ptr<LayerChain> merged_, folded_, composed_;
};

}  // namespace bracket
