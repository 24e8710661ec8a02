// The interface of a layer, and what every layer works with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bracket/network.h"
#include "host/network/file_order.h"
#include "kernels/ops.h"

namespace bracket {

/// What flows between two layers: rows of `size` columns.
struct Features {
  std::int64_t size = 0;
  std::optional<ImageShape> image = {};
  bool flattened = false;  ///< an image behind flatten: PyTorch sees a row in the order (channel, y, x)
};

std::string described(const ImageShape& image);  ///< "28 x 28 pixels of 3 channels"
std::string described(const Features& features);

struct Merging;

/// Where a tensor lies in a flat block.
struct BlockView {
  std::int64_t offset = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;  ///< 0: a vector
  Tensor of(const Tensor& block) const;
};

/// Hands out places in the two flat blocks while a network is built.
class BlockLayout {
 public:
  explicit BlockLayout(std::vector<ParameterInfo>& infos) : infos_(infos) {}
  BlockView add(const std::string& name, std::int64_t rows, std::int64_t cols, bool buffer);
  /// A tensor that files hold with another shape or in another order.
  BlockView add(const std::string& name, std::int64_t rows, std::int64_t cols, bool buffer,
                std::vector<std::int64_t> shape, FileOrder order);
  std::int64_t value_elements() const noexcept { return next_[0]; }
  std::int64_t buffer_elements() const noexcept { return next_[1]; }

 private:
  std::vector<ParameterInfo>& infos_;
  std::int64_t next_[2] = {0, 0};
};

/// Writes the starting values of one tensor of a network.
using ValueWriter = std::function<void(const BlockView& view, bool buffer, const std::vector<double>& values)>;

/// The shared part of a forward or reverse call.
struct Frame {
  Ops& ops;
  Arena& arena;
  DType dtype;
  PassMode mode;
  const Rows& rows;
  const ParameterSet& parameters;
  /// Whether the primal part is computed. False: a push reads it forwards; a pull, backwards, is the adjoint of a push
  /// and knows primal values and adjoints of tangents alone.
  bool primal;
  /// Forwards: where every layer adds its log |det|, fused or pushed, in the parts that are present. Backwards: the
  /// adjoint of the sum, and with it of every layer's share.
  Stacked log_volume = {};
  /// What a forward op of this call writes of `value`.
  Stacked output(const Stacked& value) const { return primal ? value : Stacked{{}, value.tangent}; }
};

/// A value that a pass keeps beside the slots: of the whole pass (batch statistics, normalised weights; a vector where
/// cols is 0), or `cols` bytes for each of its primal rows (activation masks, choices of a pool).
struct Extra {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  bool bytes_per_row = false;
};

/// A value that a pass keeps for every row. Of the K tangents that a pass carries per sample it has min(K,
/// most_tangents).
struct SlotSize {
  std::int64_t cols = 0;
  std::int64_t most_tangents = std::numeric_limits<std::int64_t>::max();
  Rows rows(const Rows& pass) const noexcept {
    return {pass.primal, pass.first, pass.count, std::min(pass.tangents, most_tangents)};
  }
};

/// BatchNorm folded into weights: values that it need not touch for every row, and weights that it does.
struct FoldedNorm {
  std::int64_t values_per_row = 0;
  std::int64_t weights = 0;
  FoldedNorm operator+(const FoldedNorm& b) const noexcept {
    return {values_per_row + b.values_per_row, weights + b.weights};
  }
};

/// One step of a network. A layer owns `slot_sizes().size()` values per row; the last one is its output.
class Layer {
 public:
  virtual ~Layer() = default;

  std::int64_t output_size() const noexcept { return slot_sizes_.back().cols; }
  const std::vector<SlotSize>& slot_sizes() const noexcept { return slot_sizes_; }
  const std::vector<Extra>& extras() const noexcept { return extras_; }
  /// Keys that `initialize` may draw with: key.step and the ones behind it.
  virtual std::uint64_t keys() const noexcept { return 4; }
  /// Layer whose output is the second input (-1: the network's input), or none.
  static constexpr int kNoSide = -2;
  virtual int side_layer() const noexcept { return kNoSide; }
  virtual bool batch_norm() const noexcept { return false; }
  /// Multiplications and additions of the products with weights that one row takes, primal or tangent, forward or
  /// reverse. Pointwise work counts as none.
  virtual std::int64_t row_flops() const noexcept { return 0; }
  /// The same of what a primal pass takes once, whatever its rows.
  virtual std::int64_t once_flops() const noexcept { return 0; }
  virtual FoldedNorm folded() const noexcept { return {}; }
  /// Whether a training pass moves buffers: running statistics, vectors of a power iteration.
  virtual bool training_state() const noexcept { return batch_norm(); }
  virtual bool injective() const noexcept = 0;
  /// Whether the layer adds its share to Frame::log_volume; permutations and rotations have none to add.
  virtual bool has_log_volume() const noexcept { return false; }
  /// Whether second derivatives in the input vanish wherever they exist and no parameter bends it (as prelu's slope).
  virtual bool piecewise_linear() const noexcept { return false; }
  /// Whether `reverse` writes into grad_y.
  virtual bool consumes_grad_y() const noexcept { return false; }

  /// Starting values of parameters and buffers. Asked of layers as specified; what stands for several throws an
  /// internal error.
  virtual void initialize(const RandomKey& key, const ValueWriter& write) const = 0;
  /// Computes `slots` from `x` and, where used, `side`: the primal part when frame.primal is set, the tangent part when
  /// present. Extras are written with the primal part and read with the tangent part.
  virtual void forward(const Frame& frame, const Stacked& x, const Stacked& side, std::span<const Stacked> slots,
                       std::span<const Tensor> extras) const = 0;
  /// grad_y: adjoint of the output; its primal part may be absent (zero), its tangent part is absent without tangents.
  /// grad_x, grad_side: both parts or none (of a product with a weight also the primal part alone), overwritten; they
  /// share no memory with grad_y. grad_block: flat gradient or absent. Of a pull the tangent parts of grad_y, grad_x
  /// and grad_side are present and nothing else but the primal parts of x, side and slots; with a grad_block, which
  /// only piecewise-linear layers take then, the tangent parts of x and slots too.
  virtual void reverse(const Frame& frame, const Stacked& x, const Stacked& side, std::span<const Stacked> slots,
                       std::span<const Tensor> extras, const Stacked& grad_y, const Stacked& grad_x,
                       const Stacked& grad_side, const Tensor& grad_block, Update update) const = 0;

 protected:
  std::vector<SlotSize> slot_sizes_;
  std::vector<Extra> extras_;
};

/// A new Stacked of `cols` columns, contiguous (primal then tangent) where both parts are wanted.
Stacked allocate_stacked(Arena& arena, DType dtype, const Rows& rows, std::int64_t cols, bool primal, bool tangent);

/// The two parts as one matrix when they lie behind one another, else an absent tensor.
Tensor joined(const Stacked& value);

/// `value` with a zero-filled primal part where that was absent; in a pull as it is.
Stacked with_primal(const Frame& frame, const Stacked& value, std::int64_t cols);

/// Adds the sum of every row's `shares` [r, c] to `total` [r, 1], part by part where both are present.
void add_row_sums(const Frame& frame, const Stacked& total, const Stacked& shares);
/// The adjoint: every one of `cols` shares has that of its row's total.
Stacked spread_over_row(const Frame& frame, const Stacked& total, std::int64_t cols);

/// Whether a pointwise function is strictly monotone whatever is learnt: relu is flat, silu turns, and a learnt prelu
/// slope may reach zero or below.
bool injective_function(Activation function, double negative_slope) noexcept;

/// Uniform values in (-bound, bound) for one tensor.
std::vector<double> uniform_values(const RandomKey& key, std::int64_t count, double bound);
/// Normal values with a mean, from the same words as Ops::random_normal.
std::vector<double> gaussian_values(const RandomKey& key, std::int64_t count, double mean, double deviation);

/// Resampling beside a convolution.
struct Resampling {
  enum class Kind : std::uint8_t {
    none,
    upsample,  ///< nearest, in front of it
    mean,      ///< of windows, behind it
    sum,       ///< of windows, behind it
  };
  Kind kind = Kind::none;
  std::int64_t window = 1;
  /// What a pool multiplies its sums by, and what becomes of a bias in front of it.
  double scale() const noexcept { return kind == Kind::mean ? 1 / static_cast<double>(window * window) : 1; }
  double bias_factor() const noexcept { return kind == Kind::sum ? static_cast<double>(window * window) : 1; }
};

/// What is computed with the product of a layer.
struct Around {
  const UnflattenSpec* unflatten = nullptr;  ///< what the output becomes
  const BatchNormSpec* norm = nullptr;       ///< behind the product, of an inference pass
  std::string norm_prefix = {};
  const ActivationSpec* activation = nullptr;  ///< behind that
  std::string activation_prefix = {};
  Resampling resampling = {};  ///< part of a Conv2dSpec's product
  double bias_factor = 1;      ///< of a Conv2dSpec's bias
};

std::unique_ptr<Layer> make_linear_layer(const LinearSpec& spec, const Around& around, const Features& input,
                                         const std::string& prefix, BlockLayout& layout);
/// `input` is what the convolution reads: with upsampling in front of it the larger image.
std::unique_ptr<Layer> make_convolution_layer(const Conv2dSpec& spec, const Around& around, const ImageShape& input,
                                              const std::string& prefix, BlockLayout& layout);
std::unique_ptr<Layer> make_convolution_transpose_layer(const ConvTranspose2dSpec& spec, const Around& around,
                                                        const ImageShape& input, const std::string& prefix,
                                                        BlockLayout& layout);
/// A linear layer, the unflatten behind it (around.unflatten) and the convolution that reads its image, as one map.
std::unique_ptr<Layer> make_composed_layer(const LinearSpec& linear, const Conv2dSpec& convolution,
                                           const Around& around, const Features& input, const std::string& prefix,
                                           const std::string& convolution_prefix, BlockLayout& layout);
std::unique_ptr<Layer> make_composed_layer(const LinearSpec& linear, const ConvTranspose2dSpec& convolution,
                                           const Around& around, const Features& input, const std::string& prefix,
                                           const std::string& convolution_prefix, BlockLayout& layout);
std::unique_ptr<Layer> make_activation_layer(const ActivationSpec& spec, std::int64_t inputs, const std::string& prefix,
                                             BlockLayout& layout);
std::unique_ptr<Layer> make_batch_norm_layer(const BatchNormSpec& spec, const ActivationSpec* activation,
                                             const Features& input, const std::string& prefix, BlockLayout& layout);
std::unique_ptr<Layer> make_affine_layer(const AffineSpec& spec, std::int64_t inputs, const std::string& prefix,
                                         BlockLayout& layout);
std::unique_ptr<Layer> make_fourier_features_layer(const FourierFeaturesSpec& spec, std::int64_t inputs,
                                                   const std::string& prefix, BlockLayout& layout);
std::unique_ptr<Layer> make_monotone_coupling_layer(const MonotoneCouplingSpec& spec, std::int64_t inputs,
                                                    const std::string& prefix, BlockLayout& layout);
std::unique_ptr<Layer> make_rational_quadratic_coupling_layer(const RationalQuadraticCouplingSpec& spec,
                                                              std::int64_t inputs, const std::string& prefix,
                                                              BlockLayout& layout);
std::unique_ptr<Layer> make_permutation_layer(const PermutationSpec& spec, std::int64_t inputs,
                                              const std::string& prefix, BlockLayout& layout);
std::unique_ptr<Layer> make_rotation_layer(const RotationSpec& spec, std::int64_t inputs, const std::string& prefix,
                                           BlockLayout& layout);
std::unique_ptr<Layer> make_confinement_layer(const ConfinementSpec& spec);
/// Sum (scale 1), mean or nearest upsampling of windows; `image` is the larger one.
std::unique_ptr<Layer> make_pool_layer(const ImageShape& image, std::int64_t window, double scale);
std::unique_ptr<Layer> make_upsample_layer(const ImageShape& image, std::int64_t factor);
std::unique_ptr<Layer> make_max_pool_layer(const ImageShape& image, std::int64_t window);
/// `path` ends in the layer's index and a dot; names and messages put "body." and "skip." behind it.
std::unique_ptr<Layer> make_residual_layer(const ResidualSpec& spec, const Features& input, const std::string& path,
                                           Merging& merging, BlockLayout& layout, Features& output);

}  // namespace bracket
