// The op list: the only door between host/ and arithmetic. See kernels/README.md for the mathematics.
//
// Conventions
// - Matrices are row-major, one sample or one tangent per row; a row stride may exceed the number of columns.
// - Outputs first, then inputs, sizes, scalars, workspace. "Optional" operands may be absent tensors.
// - Public methods check dtypes and shapes, throw InvalidArgument with the values, and then call the device's
//   implementation. Work is queued on the device's stream; nothing here waits except `synchronize` and `download`.
// - All operands of one call share one dtype (f32 or f64) unless the op says otherwise. u8 is for storage: only the ops
//   that name it take it. Empty operands are allowed.
// - Results are the same bits on every run and for every number of threads (fixed-order sums, no atomics on floats).
//
// Stacked rows: a pass carries n primal rows and, for the primal rows [first, first + count), K tangent rows each,
// sample-major: tangent row i K + k is tangent k of primal row first + i.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "bracket/activation.h"
#include "bracket/math_mode.h"
#include "bracket/random.h"
#include "bracket/spectral_function.h"
#include "bracket/tensor.h"
#include "kernels/step_state.h"

namespace bracket {

enum class Update : std::uint8_t { overwrite, accumulate };

/// A pointwise non-linearity. `negative_slope` is used by leaky_relu; prelu's slope is a tensor.
struct ActivationKind {
  Activation function = Activation::identity;
  double negative_slope = 0.01;
};

/// Which primal rows carry tangents, and how many each.
struct Rows {
  std::int64_t primal = 0;
  std::int64_t first = 0;     ///< first primal row with tangents
  std::int64_t count = 0;     ///< primal rows with tangents
  std::int64_t tangents = 0;  ///< K
  std::int64_t tangent_rows() const noexcept { return count * tangents; }
};

/// One activation of a pass. Ops that take Stacked operands compute the primal part when `primal` of the output is
/// present and the tangent part when `tangent` of the output is present; a tangent part reads the primal inputs.
struct Stacked {
  Tensor primal;   ///< [rows.primal, c]
  Tensor tangent;  ///< [rows.tangent_rows(), c]
};

/// C[m, n] = sum over p of A[m, p] B[p, n].
struct ProductSize {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t p = 0;
};

/// Bias and non-linearity of a layer in the product C that they stand behind: y = f(C + bias) on primal rows, y = f' C
/// on tangent rows. C counts as rounded to its dtype, so that the bits are those of the product and of
/// masked_activation_forward (relu, leaky_relu) or bias_activation_forward (others) behind it.
struct ProductEpilogue {
  enum class Part : std::uint8_t { none, primal, tangent };  ///< none: y = C, and nothing else is given
  Part part = Part::none;
  /// Not prelu, whose slope is a tensor. Tangent rows: relu or leaky_relu, as their f' needs no more than the mask.
  ActivationKind kind = {};
  Tensor bias = {};    ///< [channels] of y, optional; of primal rows
  Tensor mask = {};    ///< of relu and leaky_relu, as masked_activation_forward has it: written, for tangents read
  Tensor before = {};  ///< of other functions but identity: receives C; of y's shape, may be y
  Rows rows = {};      ///< of tangents: what the rows of y and of the mask are

  bool masked() const noexcept { return kind.function == Activation::relu || kind.function == Activation::leaky_relu; }
  /// Where C goes if it is stored.
  const Tensor& product(const Tensor& y) const noexcept { return before.absent() ? y : before; }
};

/// y = max_slope sigmoid(s) a + bound(t, 8) + sum_k max_height sigmoid(h_k) sigmoid(exp(bound(b_k, 4)) (a - bound(c_k,
/// 8))) with bound(x, m) = m tanh(x / m): strictly increasing in a. One row of theta holds, for each active column in
/// turn, [s, t, h_1..h_K, b_1..b_K, c_1..c_K].
///
/// theta.tangent holds theta's tangent along each tangent row of x or, with `passive_jacobian`, theta as a function of
/// the p passive columns of x: row i p + j is the derivative of theta of primal row first + i in passive column j. The
/// tangent along a row x' is then sum_j x'_j (row i p + j), formed here. Of K > p tangents per sample only p need to
/// pass through what computes theta.
struct Staircase {
  std::int64_t active_first = 0;  ///< columns [active_first, active_first + active_count) are mapped, others copied
  std::int64_t active_count = 0;
  std::int64_t knots = 0;
  double max_slope = 0;
  double max_height = 0;
  bool passive_jacobian = false;
  std::int64_t parameters() const noexcept { return active_count * (2 + 3 * knots); }
  /// Rows of theta that stand beside stacked rows of `cols` columns.
  constexpr Rows theta_rows(const Rows& rows, std::int64_t cols) const noexcept {
    return {rows.primal, rows.first, rows.count, passive_jacobian ? cols - active_count : rows.tangents};
  }
};

/// Monotone rational-quadratic spline on [-bound, bound], the identity outside, with a continuous derivative (Durkan,
/// Bekasov, Murray, Papamakarios, "Neural spline flows", 2019). One row of theta holds, for each active column in turn,
/// [w_1..w_K, h_1..h_K, d_1..d_{K-1}]: bin k is 2 bound (min_width + (1 - K min_width) softmax(w)_k) wide, likewise as
/// high, and the slope at the end of bin k is exp(m tanh(d_k / m)), m = -log min_derivative, at both ends of the spline
/// 1. All zero: the identity. theta.tangent as in Staircase.
struct RationalQuadratic {
  std::int64_t active_first = 0;  ///< columns [active_first, active_first + active_count) are mapped, others copied
  std::int64_t active_count = 0;
  std::int64_t bins = 1;
  double bound = 1;
  double min_width = 0;  ///< as a share of the interval; bins min_width < 1
  double min_height = 0;
  double min_derivative = 0;  ///< of the slopes at the ends of bins, which lie between it and its reciprocal; below 1
  bool passive_jacobian = false;
  constexpr std::int64_t column_parameters() const noexcept { return 3 * bins - 1; }
  constexpr std::int64_t parameters() const noexcept { return active_count * column_parameters(); }
  /// Rows of theta that stand beside stacked rows of `cols` columns.
  constexpr Rows theta_rows(const Rows& rows, std::int64_t cols) const noexcept {
    return {rows.primal, rows.first, rows.count, passive_jacobian ? cols - active_count : rows.tangents};
  }
};

/// Square windows that tile images [height, width, channels]; one pixel of the small image per window. A row of a
/// matrix is one image, columns in the order (y, x, channel).
struct Window {
  std::int64_t height = 0;  ///< of the large image; a multiple of `window`, as is the width
  std::int64_t width = 0;
  std::int64_t channels = 0;
  std::int64_t window = 1;
  double scale = 1;  ///< of window_sum and window_spread
  std::int64_t large_cols() const noexcept { return height * width * channels; }
  std::int64_t small_cols() const noexcept { return large_cols() / (window * window); }
};

/// How stored pixels become numbers: y = scale * (pixel + noise) + shift, noise uniform in (0, 1) with `dequantise`,
/// else 0; with `flip` an image is mirrored left to right with probability 1/2.
struct ImageTransform {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;
  bool flip = false;
  bool dequantise = false;
  double scale = 2.0 / 255;  ///< with shift -1: pixels 0 and 255 become -1 and 1
  double shift = -1;
  bool in_order = false;  ///< the table holds the rows of the batch already: row i shows image i
  std::int64_t cols() const noexcept { return height * width * channels; }
};

/// Confinement of an energy: quadratic/2 |x|^2 + wall relu(|x| - radius)^2.
struct Confinement {
  double quadratic = 0;
  double wall = 0;
  double radius = 0;
};

struct Adam {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;  ///< decoupled (AdamW): parameter -= rate * weight_decay * parameter
};

/// The penalty term max(0, w P - threshold) of the energy update.
struct PenaltyRule {
  double threshold = 0;  ///< tau
  bool data_gradient =
      false;  ///< false: P = mean residual^2 / 2 (bidirectional bounds); true: zero_gp, P = mean e_tangent
};

enum class ToyData : std::int32_t {
  gaussians25,
  gaussians8,
  swiss_roll,
  two_moons,
  rings,
  circles,
  pinwheel,
  checkerboard,
  two_spirals,
  swiss_roll_thin
};

/// A convolution of images of in_height x in_width pixels with square kernels and zero padding. An image is one row of
/// a matrix, pixel after pixel from left to right and top to bottom, the channels of a pixel together (NHWC).
struct Convolution {
  std::int64_t in_height = 0;
  std::int64_t in_width = 0;
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;

  std::int64_t out_height() const noexcept { return (in_height + 2 * padding - kernel) / stride + 1; }
  std::int64_t out_width() const noexcept { return (in_width + 2 * padding - kernel) / stride + 1; }
  std::int64_t in_columns() const noexcept { return in_height * in_width * in_channels; }
  std::int64_t out_columns() const noexcept { return out_height() * out_width() * out_channels; }
  std::int64_t weight_columns() const noexcept { return kernel * kernel * in_channels; }
  /// The products that conv2d_forward and conv2d_reverse_data (for a class of pixels modulo the stride) are.
  ProductSize forward_size(std::int64_t rows) const noexcept {
    return {rows * out_height() * out_width(), out_channels, weight_columns()};
  }
  ProductSize reverse_data_size(std::int64_t rows) const noexcept {
    const std::int64_t classes = stride * stride;
    return {rows * in_height * in_width / classes, in_channels, out_channels * kernel * kernel / classes};
  }
  /// The gradient of the weights of `rows` images is summed in at most this many chunks, which are then added in order.
  std::int64_t weight_chunks(std::int64_t rows) const noexcept;
  /// Elements of the workspace of conv2d_reverse_weights: 0 for one chunk, at most 2^21.
  std::int64_t weights_workspace(std::int64_t rows) const noexcept;
};

/// A kernel summed over boxes: a stride-1 convolution with nearest upsampling in front of it (`transposed`) or a sum over
/// windows behind it is one strided (transposed) convolution with these weights.
struct KernelBox {
  std::int64_t out_channels = 0;
  std::int64_t in_channels = 0;
  std::int64_t kernel = 1;
  std::int64_t window = 1;
  double scale = 1;
  bool transposed = false;
  std::int64_t wide_kernel() const noexcept { return kernel + window - 1; }
  std::int64_t rows() const noexcept { return transposed ? in_channels : out_channels; }  ///< of the summed weights
  std::int64_t cols() const noexcept {
    return wide_kernel() * wide_kernel() * (transposed ? out_channels : in_channels);
  }
  std::int64_t weight_columns() const noexcept { return kernel * kernel * in_channels; }  ///< of the weights
};

/// Directions per sample of the ops of a LOBPCG block: the projected problem is three times as large.
inline constexpr std::int64_t kMaxLobpcgBlock = 4;

/// Workspace of the whole-tensor reductions: this many f64 elements.
inline constexpr std::int64_t kReductionWorkspace = 1024;

/// Host memory that uploads leave without anyone waiting: two slots, filled in turn.
class UploadQueue {
 public:
  virtual ~UploadQueue() = default;
  /// The slot to fill next. Waits only until the last upload from it, the one before the newest, is done.
  virtual void* next_slot() = 0;
  /// Queues the copy of the first `bytes` of the slot that next_slot() gave last to the device, on the device's stream.
  virtual void upload(void* device, std::int64_t bytes) = 0;
};

/// What a recording becomes.
enum class Replay {
  graph,       ///< a CUDA graph: its kernels as they are, one launch each time
  one_kernel,  ///< one kernel of one block that plays theirs, one launch for all times; a graph where that cannot be
};

/// Queued work that was recorded once.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Queues it `times` times again on the device's stream, each time behind the last.
  virtual void replay(std::int64_t times = 1) = 0;
  virtual Replay form() const noexcept = 0;  ///< what it has become
};

class Ops {
 public:
  virtual ~Ops() = default;
  Ops() = default;
  Ops(const Ops&) = delete;
  Ops& operator=(const Ops&) = delete;

  // ---- memory and order ---------------------------------------------------------------------------------------
  /// Raw memory, aligned to kMemoryAlignment; null when the device has none left. For the pool only.
  virtual void* allocate_memory(std::int64_t bytes) = 0;
  virtual void release_memory(void* address, std::int64_t bytes) noexcept = 0;
  /// Free and total bytes of the device; 0 when unknown, as where the memory is the embedding program's.
  virtual void memory_info(std::int64_t& free_bytes, std::int64_t& total_bytes) = 0;
  virtual void copy_bytes_to_device(void* device, const void* host,
                                    std::int64_t bytes) = 0;  ///< host data is consumed on return
  virtual void copy_bytes_to_host(void* host, const void* device, std::int64_t bytes) = 0;  ///< waits
  virtual void fill_bytes(void* device, int value, std::int64_t bytes) = 0;
  /// Slots of `bytes` each. Throws OutOfMemory. The queue must be destroyed before these Ops.
  virtual std::unique_ptr<UploadQueue> make_upload_queue(std::int64_t bytes) = 0;
  virtual void synchronize() = 0;
  /// Records what `queue` queues, which does not run. Null where the device has no such thing: a CPU, the legacy default
  /// stream (for a graph), a stream that the caller is capturing himself; `queue` was not called then. `queue` may
  /// neither take memory from the device nor wait, and what it queues may change between replays by what device memory
  /// holds only; it is called twice where one kernel was asked for and a graph is what can be. The first use of a kernel
  /// loads it, which a capture may refuse: run the work once before. The recording must be destroyed before these Ops.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& /*queue*/, Replay /*replay*/ = Replay::graph) {
    return nullptr;
  }
  /// Makes the device current for the calling thread and returns what `leave_device` restores; only CUDA has such a
  /// state. Every checked method below runs between the two, so a caller's current device never changes.
  virtual int enter_device() { return 0; }
  virtual void leave_device(int /*previous*/) noexcept {}
  /// True for the dry run: addresses are fictitious, nothing may be read back.
  virtual bool planning() const noexcept { return false; }
  /// How the linear and conv2d ops called from now on multiply f32; fp32 at first. See MathScope.
  MathMode math_mode() const noexcept { return math_mode_; }
  void set_math_mode(MathMode mode) noexcept { math_mode_ = mode; }
  /// Whether a product of this size applies an epilogue where it stores C. Elsewhere the epilogue is a pass over y of
  /// its own, and primal and tangent rows had better share one product.
  virtual bool fuses_epilogue(DType /*dtype*/, const ProductSize& /*size*/) const noexcept { return false; }

  void upload(Tensor y, const void* host);  ///< contiguous y of the same dtype as the host elements
  void download(void* host, Tensor x);      ///< contiguous x; waits
  void fill(Tensor y, double value);
  void copy(Tensor y, Tensor x);                ///< same shape; dtypes may differ (converted); strided matrices allowed
  void axpy(Tensor y, double alpha, Tensor x);  ///< y += alpha x; strided matrices allowed

  // ---- linear.{cpp,cu}, linear_sm80.cu: dense layers. x [r, in], w [out, in], y [r, out] ----------------------------
  /// y = x w^T, or what the epilogue makes of it; its channels are the columns of y.
  void linear_forward(Tensor y, Tensor x, Tensor w, const ProductEpilogue& epilogue = {});
  void linear_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, Update update);     ///< grad_x (+)= grad_y w
  void linear_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, Update update);  ///< grad_w (+)= grad_y^T x

  // ---- convolution.{cpp,cu}: x [r, H W Ci], w [Co, k k Ci] in the order (ky, kx, ci), y [r, Ho Wo Co] ---------------
  // y[oy, ox, co] = sum of x[oy stride + ky - padding, ox stride + kx - padding, ci] w[co, ky, kx, ci].
  // A transposed convolution is the adjoint of the convolution whose input is its larger image: its forward is
  // conv2d_reverse_data, its reverse_data is conv2d_forward, and its weights' gradient is conv2d_reverse_weights with
  // its input as grad_y and its output's adjoint as x. Rows and columns of x that no kernel reaches ("output padding")
  // get 0. Of an epilogue the channels are those of y, or of grad_x, which is overwritten then.
  void conv2d_forward(Tensor y, Tensor x, Tensor w, const Convolution& map, const ProductEpilogue& epilogue = {});
  void conv2d_reverse_data(Tensor grad_x, Tensor grad_y, Tensor w, const Convolution& map, Update update,
                           const ProductEpilogue& epilogue = {});
  /// workspace: map.weights_workspace(rows) elements or more, of grad_w's dtype; may be absent where that is 0.
  void conv2d_reverse_weights(Tensor grad_w, Tensor grad_y, Tensor x, const Convolution& map, Update update,
                              Tensor workspace);

  // ---- kernel_box.{cpp,cu}: w [Co, k k Ci] as above, y the weights of a strided convolution, K = k + window - 1 -------
  /// y[co, ty, tx, ci] = scale * sum over qy, qx < window of w[co, ty - qy, tx - qx, ci]; with `transposed`
  /// y[ci, ty, tx, co] = that sum at (K - 1 - ty, K - 1 - tx). y [Co, K K Ci], transposed [Ci, K K Co].
  void kernel_box_forward(Tensor y, Tensor w, const KernelBox& map);
  void kernel_box_reverse(Tensor grad_w, Tensor grad_y, const KernelBox& map, Update update);  ///< the adjoint

  // ---- activation.{cpp,cu} ----------------------------------------------------------------------------------------
  /// primal y = f(x + bias), tangent y' = f'(x + bias) x'. bias [c] optional, where c divides the number of columns:
  /// column j uses bias[j mod c], as a row of an image is pixels of c channels. slope [1] or [c] for prelu (any c that
  /// divides the columns when there is no bias), else absent.
  /// y may alias x.  (With aliasing and a non-identity f the tangent part must be requested in the same call.)
  void bias_activation_forward(Stacked y, Stacked x, Tensor bias, Tensor slope, ActivationKind kind, const Rows& rows);
  /// x holds what forward read (before the bias). grad_x' = f' grad_y';
  /// grad_x = f' grad_y + f'' sum_k x'_k grad_y'_k on rows that carry tangents; grad_bias [c] (+)= sums of the primal
  /// grad_x over rows and pixels (without a bias, any c that divides the columns); grad_slope (+)= derivative in the
  /// prelu slope over all rows. grad_bias, grad_slope, grad_y.primal (absent: zero), and the tangent parts are
  /// optional. grad_x may alias grad_y; grad_x.primal absent: not wanted, allowed only without grad_bias.
  void bias_activation_reverse(Stacked grad_x, Tensor grad_bias, Tensor grad_slope, Stacked grad_y, Stacked x,
                               Tensor bias, Tensor slope, ActivationKind kind, const Rows& rows, Update update);

  // ---- masked_activation.{cpp,cu}: relu and leaky_relu that keep 1 bit per element instead of x ---------------------
  /// mask u8[rows.primal, cols / c ceil(c / 8)]: bit ch mod 8 of byte pixel ceil(c / 8) + ch / 8 is [x + bias > 0] (a
  /// NaN counts as positive, as in bias_activation); unused bits are 0. c = channels divides the columns; bias [c]
  /// optional. y.primal given: f(x + bias), and the mask is written; absent: the mask is read, and only y' = f' x'
  /// computed, for which neither x.primal nor the bias is needed. y may alias x.
  void masked_activation_forward(Stacked y, Tensor mask, Stacked x, Tensor bias, std::int64_t channels,
                                 ActivationKind kind, const Rows& rows);
  /// grad_x = f' grad_y on both parts (f'' = 0), f' from the mask; grad_bias [c] (+)= sums of the primal grad_x over
  /// rows and pixels. grad_bias, grad_y.primal (absent: zero) and the parts of grad_x are optional, grad_bias only with
  /// grad_x.primal. grad_x may alias grad_y.
  void masked_activation_reverse(Stacked grad_x, Tensor grad_bias, Stacked grad_y, Tensor mask, std::int64_t channels,
                                 ActivationKind kind, const Rows& rows, Update update);

  // ---- pooling.{cpp,cu}: x and y are rows of images, primal or tangent: these maps are linear -----------------------
  /// Pixel of the small image: y (+)= scale * sum of x over its window (average pool: scale 1 / window^2).
  void window_sum(Tensor y, Tensor x, const Window& map, Update update);
  /// Pixel of the large image: y (+)= scale * x of the window it lies in (nearest upsample: scale 1). The adjoint of
  /// window_sum.
  void window_spread(Tensor y, Tensor x, const Window& map, Update update);

  /// y = the largest x of the window (scale must be 1), the first NaN where there is one; choice u8 of y's shape = its
  /// place ky window + kx, the first of equals. window at most 16.
  void max_pool_forward(Tensor y, Tensor choice, Tensor x, const Window& map);
  void max_pool_reverse(Tensor grad_x, Tensor grad_y, Tensor choice, const Window& map);  ///< grad_x is overwritten

  // ---- batch_norm.{cpp,cu}: x [n, c]; gamma, beta, mean, variance [c]; spectral_norm.{cpp,cu} -----------------------
  /// y = gamma (x - mean) inv_std + beta with batch statistics (biased variance); running statistics move by
  /// `momentum` towards the batch's (unbiased variance for n > 1), as PyTorch does. running_* optional.
  void batch_norm_train_forward(Tensor y, Tensor mean, Tensor inv_std, Tensor running_mean, Tensor running_variance,
                                Tensor x, Tensor gamma, Tensor beta, double momentum, double epsilon);
  void batch_norm_train_reverse(Tensor grad_x, Tensor grad_gamma, Tensor grad_beta, Tensor grad_y, Tensor x,
                                Tensor gamma, Tensor mean, Tensor inv_std, Update update);
  /// Inference: the affine map of the running statistics, on stacked rows (no shift on tangents).
  void batch_norm_infer_forward(Stacked y, Stacked x, Tensor gamma, Tensor beta, Tensor running_mean,
                                Tensor running_variance, double epsilon, const Rows& rows);
  void batch_norm_infer_reverse(Stacked grad_x, Tensor grad_gamma, Tensor grad_beta, Stacked grad_y, Stacked x,
                                Tensor gamma, Tensor running_mean, Tensor running_variance, double epsilon,
                                const Rows& rows, Update update);
  /// `iterations` power iterations on (u [out], v [in]) in place, then sigma = u^T w v and w_normalized = w / sigma.
  /// Normalisation is x / max(|x|, epsilon), PyTorch's order: u <- w v, then v <- w^T u per iteration.
  void spectral_norm_forward(Tensor w_normalized, Tensor sigma, Tensor u, Tensor v, Tensor w, int iterations,
                             double epsilon);
  /// grad_w (+)= (grad_wn - <grad_wn, w_normalized> u v^T) / sigma, u and v held constant.
  void spectral_norm_reverse(Tensor grad_w, Tensor grad_w_normalized, Tensor w_normalized, Tensor sigma, Tensor u,
                             Tensor v, Update update);

  // ---- reduction.{cpp,cu} ---------------------------------------------------------------------------------------
  void row_dot(Tensor y, Tensor a, Tensor b);  ///< y[i] = <a_i, b_i>; y [n]
  void row_norm(Tensor y, Tensor x);           ///< y[i] = |x_i|
  /// sum f64[1] = sum of all elements (f64 accumulation, fixed order). workspace f64[kReductionWorkspace].
  void sum(Tensor sum, Tensor x, Tensor workspace);
  void squared_norm(Tensor sum, Tensor x, Tensor workspace);
  /// If the state is clean and x holds a NaN or infinity: nonfinite_tensor = tag, nonfinite_element = lowest such
  /// element. tag >= 1.
  void finite_check(StepState* state, Tensor x, std::int64_t tag, Tensor workspace);

  // ---- dense.{cpp,cu}: small dense algebra per sample. Tangent blocks t [n K, D], sample-major ----------------------
  void gram(Tensor g, Tensor t);  ///< g f64[n, K, K] = T T^T per sample, f64 accumulation; t [n K, D]
  void cholesky(Tensor g);        ///< lower factor in place, f64[n, K, K]; NaN where not positive definite
  /// x = L^-1 b (transposed: L^-T b) per sample; l f64[n, K, K], b and x [n K, D], may alias.
  void triangular_solve(Tensor x, Tensor l, Tensor b, bool transposed);
  void log_diagonal_sum(Tensor h, Tensor l);  ///< h[i] = sum_k log l[i, k, k]
  /// Cyclic Jacobi: values f64[n, K] ascending, vectors f64[n, K, K], row k the unit eigenvector of value k with its
  /// largest component positive. `a` (symmetric, f64[n, K, K]) is overwritten.
  void symmetric_eigen(Tensor values, Tensor vectors, Tensor a);
  /// Of the smallest eigenvalue l of J^T J: h = d/2 log l, v = its vector, scale = d / l; d = K.
  void min_singular(Tensor h, Tensor v, Tensor scale, Tensor values, Tensor vectors);
  void combine_tangents(Tensor y, Tensor t, Tensor v);  ///< y_i = sum_k v_ik t_(i K + k); y [n, D], v [n, K]
  void scale_rows(Tensor y, Tensor x, Tensor scale, double factor);  ///< y_i = factor scale_i x_i; may alias
  void tile_identity(Tensor t, std::int64_t samples);                ///< t [samples K, K] = an identity per sample

  // ---- lobpcg.{cpp,cu}: the smallest singular value of J [D, d] per sample, without J. v, r, p, w [n, d] are
  // ---- directions, jv, jr, jp [n, D] their images J v, ...; see kernels/formula/rayleigh_ritz.h
  /// r_i = (w_i - mu^2 v_i) / |w_i - mu^2 v_i| with w = J^T J v and mu = |J v| / |v|; zero where it vanishes, NaN where
  /// v does. r may alias w.
  void lobpcg_residual(Tensor r, Tensor w, Tensor v, Tensor jv);
  /// v becomes the unit vector in the span of {v, r, p} with the smallest |J v|, p a unit vector (or zero) that spans
  /// with it what the update does; jv and jp follow by linearity. Vectors that depend on those before them are dropped
  /// (a zero p starts). A sample with an element that is not finite becomes NaN. largest f64[n], optional, is raised to
  /// the largest |J x| of a unit vector x in that span.
  void lobpcg_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, Tensor largest = {});
  /// h = d log mu and scale = d / |J v|^2: the derivative of h with v held constant is <scale J v, d(J v)>. NaN where
  /// mu is zero. h, scale [n].
  void lobpcg_volume(Tensor h, Tensor scale, Tensor v, Tensor jv);

  // ---- lobpcg_block.{cpp,cu}: the `block` smallest singular values, 1 to kMaxLobpcgBlock and d at most. Row
  // ---- i block + k of v, p, r [n block, d] and of the images is direction k of sample i; see formula/block_ritz.h
  /// As lobpcg_update: the v of a sample become the orthonormal Ritz vectors of its smallest |J v| in the span of its
  /// v, p and r, |J v| ascending. A sample with an element that is not finite, or without `block` independent vectors,
  /// becomes NaN.
  void lobpcg_block_update(Tensor v, Tensor p, Tensor jv, Tensor jp, Tensor r, Tensor jr, std::int64_t block,
                           Tensor largest = {});
  /// Orders the rows of every sample by mu f64[n block], ascending, with what singular_certificate said of them: scale
  /// [n block], h and distance f64[n block]. Rounding puts equal values in any order.
  void lobpcg_block_order(Tensor v, Tensor jv, Tensor scale, Tensor h, Tensor mu, Tensor distance, std::int64_t block);

  // ---- singular.{cpp,cu}: factors that never square a condition number, f64 whatever the dtype of J -----------------
  /// T = L Q per sample by Householder reflections: t f64[n K, D], K <= D, becomes Q with orthonormal rows, l f64[n, K,
  /// K] lower triangular with a diagonal >= 0 (J = Q^T L^T is the QR factorisation where row k of T is column k of J).
  void lq_factor(Tensor l, Tensor t);
  /// One-sided Jacobi on the rows of A: values f64[n, K] ascending, vectors f64[n, K, K], row k the unit left singular
  /// vector x with |x^T A| = value k and its largest component positive; K <= 4096. `a` f64[n, K, K] is overwritten.
  /// Values below 2^-450 of the largest are 0. NaN where an element is not finite, and where 40 sweeps, of which 6 to
  /// 10 are usual, leave rows that are not orthogonal: nothing is known that does.
  void singular_values(Tensor values, Tensor vectors, Tensor a);
  /// h f64[n] = sum_k log s_k with s = values f64[n, K] ascending, -inf where deficiency f64[n], the number of s_k <=
  /// tolerance s_K (all K where s_K = 0), is positive; h NaN and deficiency 0 where a value is NaN.
  void log_volume(Tensor h, Tensor deficiency, Tensor values, double tolerance);
  /// What counts as zero of the smallest singular values mu f64[n b], b per sample: mu <= tolerance largest_i makes h
  /// f64[n b] = -inf and scale [n b] = 0; deficient f64[n] is their number. largest f64[n].
  void rank_threshold(Tensor h, Tensor scale, Tensor deficient, Tensor mu, Tensor largest, double tolerance);

  // ---- golub_kahan.{cpp,cu}: J V = U B per row, B upper bidiagonal, without J. v_k is row i K + k of basis [m K, d];
  // ---- alpha f64[m, K] the diagonal of B, beta f64[m, K] the elements right of it; see kernels/formula/bidiagonal.h
  /// y_i = x_i / |x_i|, norm f64[m] = |x_i|; zero where x is, NaN where it is not finite. y may alias x. Here and below
  /// norms are those of scaled elements where squares would leave the range of a double.
  void normalize_rows(Tensor y, Tensor norm, Tensor x);
  /// u <- (jv - beta_{k-1} u) / alpha_k and alpha_k = the norm of that, k = step; jv = J v_k. u is not read at step 0.
  /// What is below 8 roundings of |jv| counts as zero. u, jv [m, D].
  void golub_kahan_left(Tensor u, Tensor alpha, Tensor jv, Tensor beta, std::int64_t step);
  /// r = w - alpha_k v_k made orthogonal to v_0 .. v_k (twice), w = J^T u; beta_k = |r|, v_{k+1} = r / beta_k where
  /// there is room for it. What is below 8 roundings of |w| counts as zero, as does beta_{d-1}; v_{k+1} then comes from
  /// the coordinate direction furthest from v_0 .. v_k. w [m, d] is overwritten.
  void golub_kahan_right(Tensor basis, Tensor beta, Tensor w, Tensor alpha, std::int64_t step);
  void bidiagonal(Tensor a, Tensor alpha, Tensor beta);  ///< a f64[m, k, k] = (leading k x k block of B)^T, k <= K
  /// Gauss rules of the spectral measures of m starts, by the QR of formula/bidiagonal_qr.h: column j m + i of nodes
  /// and shares f64[k, m c] is the rule of row i with k - c + 1 + j nodes, 0 <= j < c. Nodes are the singular values of
  /// the leading block of B, ascending; shares, whose sum is 1, the squared first components of its right singular
  /// vectors. Zeros fill a column from its top. With `lower` f64[n], n dividing m, c = 1: Gauss-Radau, k <= K + 1, of B
  /// extended by one row such that lower_i is an eigenvalue of B^T B; zero last element where lower_i >= an eigenvalue
  /// of the block it extends, which then is no lower end of the spectrum. NaN where the block is not finite, or the QR
  /// does not converge. workspace f64[k m c].
  void quadrature_rules(Tensor nodes, Tensor shares, Tensor alpha, Tensor beta, Tensor lower, Tensor workspace);
  /// sum f64[m] = norm_i^2 sum_j weight_ji sum_q share_q f(node_q^2) over the c rules of row i: the quadrature of v^T
  /// f(J^T J) v where c = 1 and weight f64[c, m], optional then, is 1. Nodes <= tolerance times the largest of their
  /// rule count as zero: zeros f64[m] is 1 where a rule with a weight has one with a share, else 0.
  void quadrature(Tensor sum, Tensor zeros, Tensor nodes, Tensor shares, Tensor norm, Tensor weight,
                  const SpectralFunction& f, double tolerance);
  /// coefficients [m, K] = norm_i f(B^T B) e_1 by values f64[m, k] and vectors f64[m, k, k] of `bidiagonal`, zero
  /// behind the first k: f(J^T J) v is the combination of the v_k with them. What counts as zero, as in `quadrature`,
  /// is left out where f is infinite.
  void spectral_coefficients(Tensor coefficients, Tensor values, Tensor vectors, Tensor norm, const SpectralFunction& f,
                             double tolerance);
  /// Of the unit vector along v: mu f64[n] = |J v|, h f64[n] = dimension log mu, scale [n] = dimension / (mu^2 |v|^2),
  /// and distance f64[n], an upper bound of min_k |s_k - mu|; w = J^T J v. h = -inf and scale = 0 where mu = 0. A scale
  /// that is no normal number of its dtype becomes NaN.
  void singular_certificate(Tensor h, Tensor scale, Tensor mu, Tensor distance, Tensor w, Tensor v, Tensor jv,
                            double dimension);

  // ---- probes.{cpp,cu}: stochastic traces and what their derivatives need, per row ----------------------------------
  /// One step of conjugate gradients for J^T J x = b: w = J^T J p, jp = J p, residual f64[m] = |r| (updated), norm
  /// f64[m] = |b|. Rows with residual <= tolerance norm, or |J p| = 0, are left as they are. With `energy` f64[m] =
  /// r^T T r, preconditioned: p is left to conjugate_direction; rows of energy <= 0 are left as they are.
  void conjugate_gradient_step(Tensor x, Tensor r, Tensor p, Tensor residual, Tensor w, Tensor jp, Tensor norm,
                               double tolerance, Tensor energy = {});
  /// p <- z + (r^T z / energy) p and energy f64[m] <- r^T z, z = T r; p <- z where energy is 0, as at the start.
  void conjugate_direction(Tensor p, Tensor energy, Tensor z, Tensor r);
  void random_signs(Tensor y, const RandomKey& key, const std::int64_t* counter);  ///< +-1 by the top bit of the word
  /// x_i <- x_i - Q^T Q x_i per sample, twice; x [n P, d], q [n R, d] with orthonormal rows (or zero ones).
  void project_rows(Tensor x, Tensor q, std::int64_t samples);
  void clear_rows(Tensor y, Tensor marks);  ///< rows of y [n P, c] become 0 where marks f64[n] > 0 for their sample
  /// value f64[n] = mean of samples f64[n P] per sample, error f64[n] = sqrt(correction s^2 / P), s^2 the variance with
  /// divisor P - 1; 0 where correction is, infinite for P = 1 otherwise.
  void probe_mean(Tensor value, Tensor error, Tensor samples, double correction);
  /// weights f64[M, m]: c_j = 1[N >= j] / P_j - 1[N >= j + 1] / P_{j+1} with P_j = survival^max(j - certain, 0) the
  /// probability of N >= j; sum_j c_j h_j is then unbiased for h_{M-1}. N of row i from elements 2 i and 2 i + 1 of the
  /// key: 64 bits, so that P_j down to 2^-60 are drawn as often as they say.
  void roulette_weights(Tensor weights, std::int64_t certain, double survival, const RandomKey& key,
                        const std::int64_t* counter);
  /// Leave-one-out traces of A: gram_image, gram_basis f64[n, 2 R, 2 R] are [X; Q] A [X; Q]^T and [X; Q] [X; Q]^T, X
  /// and Q holding R rows each, inverse f64[n, R, R] that of L in A X = L Q (as rows). value, error f64[n]. forms
  /// f64[n R], optional, take the place of the first R diagonal elements of gram_image.
  void leave_one_out_trace(Tensor value, Tensor error, Tensor gram_image, Tensor gram_basis, Tensor inverse,
                           Tensor forms = {});

  // ---- density.{cpp,cu}: layers of calibrated densities, on stacked rows --------------------------------------------
  /// y = [x, sin(x f^T), cos(x f^T)]; x [r, D], f [F, D], y [r, D + 2F].
  void fourier_features_forward(Stacked y, Stacked x, Tensor frequencies, const Rows& rows);
  void fourier_features_reverse(Stacked grad_x, Stacked grad_y, Stacked x, Tensor frequencies, const Rows& rows,
                                Update update);
  /// log_slope, optional: log dy/da of every active column, [r, active_count], tangents those of the logarithm.
  void monotone_staircase_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta, const Staircase& map,
                                  const Rows& rows);
  /// grad_x and grad_theta are overwritten. With map.passive_jacobian the tangent parts of the gradients also need
  /// theta.tangent (grad_x) and x.tangent (grad_theta). grad_log_slope, optional in each part, is the adjoint of
  /// log_slope; its tangent part needs that of grad_y, and of x and theta as grad_y's does.
  void monotone_staircase_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope, Stacked x,
                                  Stacked theta, const Staircase& map, const Rows& rows);
  // ---- rational_quadratic.{cpp,cu}: operands as those of the staircase ----------------------------------------------
  void rational_quadratic_forward(Stacked y, Stacked log_slope, Stacked x, Stacked theta, const RationalQuadratic& map,
                                  const Rows& rows);
  void rational_quadratic_reverse(Stacked grad_x, Stacked grad_theta, Stacked grad_y, Stacked grad_log_slope, Stacked x,
                                  Stacked theta, const RationalQuadratic& map, const Rows& rows);

  // ---- density.{cpp,cu}, continued ----------------------------------------------------------------------------------
  /// y = e + confinement(x): e, y [r, 1]; x [r, D]. y may alias e.
  void confinement_forward(Stacked y, Stacked e, Stacked x, const Confinement& map, const Rows& rows);
  void confinement_reverse(Stacked grad_x, Stacked grad_y, Stacked x, const Confinement& map, const Rows& rows,
                           Update update);
  /// y = x scale + shift per column (tangents: x' scale). scale, shift [c].
  void affine_columns_forward(Stacked y, Stacked x, Tensor scale, Tensor shift, const Rows& rows);
  void affine_columns_reverse(Stacked grad_x, Stacked grad_y, Tensor scale, const Rows& rows, Update update);

  // ---- optimizer.{cpp,cu}: flat parameter blocks. `state` is a device address ---------------------------------------
  /// Clears the record, sets rates (and w unless adaptive) for the step about to run.
  void begin_step(StepState* state, const Schedule& schedule);
  /// clip_scale = min(1, limit / sqrt(squared_norm)) (1 when limit is 0); records the norm. squared_norm f64[1].
  void clip_gradient(StepState* state, Tensor squared_norm, double limit, Player player);
  /// Adam with bias correction for update number updates[player] + 1 and the state's rate and clip scale. Does
  /// nothing when the state holds a non-finite mark. With beta1 = 0 `first_moment` may be absent.
  void adam(Tensor parameters, Tensor first_moment, Tensor second_moment, Tensor gradient, const Adam& rule,
            const StepState* state, Player player);
  void count_update(StepState* state, Player player);  ///< ++updates[player] unless non-finite
  /// average += (1 - d) (parameters - average), d = min(decay, (t + 1) / (t + 10)), t = state->step. Skipped when
  /// non-finite.
  void ema(Tensor average, Tensor parameters, double decay, const StepState* state);
  /// Copies the record to ring[step % ring_size] and counts the step, unless non-finite.
  void end_step(StepState* state, StepRecord* ring, std::int64_t ring_size);

  // ---- losses.{cpp,cu} --------------------------------------------------------------------------------------------
  /// Loss of the energy update and its seeds. e_data, e_fake [n]; e_tangent [n] energies' tangents; score_dot [n]
  /// (absent for zero_gp). residual_i = e_tangent_i - score_dot_i; P = mean residual^2 / 2 (zero_gp: mean e_tangent);
  /// loss = mean e_data - mean e_fake + penalty term. seed_data = 1/n; seed_fake = -1/n;
  /// seed_tangent = w on residual_i / n (zero_gp: 2 w on / n), on = 0 or 1 by the hinge. Writes the record.
  void energy_loss(Tensor seed_data, Tensor seed_fake, Tensor seed_tangent, StepState* state, Tensor e_data,
                   Tensor e_fake, Tensor e_tangent, Tensor score_dot, const PenaltyRule& rule);
  /// Records loss_generator = mean e_fake - entropy_weight mean h; e_fake, h [n].
  void generator_loss(StepState* state, Tensor e_fake, Tensor h, double entropy_weight);
  /// After energy_loss: records log_volume, lower_bound and half_variance = 1/2 Var(e_fake - |z|^2/2 - h) over the
  /// batch (divisor n); e_fake, h [n], latent z [n, d]. The state's energy_samples is not changed.
  void bound_record(StepState* state, Tensor e_fake, Tensor h, Tensor latent);
  /// The trust region of WeightController on the record's half_variance; nothing when non-finite.
  void adapt_penalty_weight(StepState* state, const WeightController& rule);

  // ---- random.{cpp,cu}, toy.{cpp,cu} -------------------------------------------------------------------------------
  // `counter`, when given, is a device address; the key's step is then key.step + *counter.
  /// Element e uses word e of the key: low + (high - low) (word + 1/2) 2^-32. Contiguous outputs.
  void random_uniform(Tensor y, const RandomKey& key, double low, double high, const std::int64_t* counter);
  /// Box-Muller on word pairs (2j, 2j+1): r sin(a), r cos(a), r = sqrt(-2 log u), a = 2 pi u'. mean 0, deviation 1.
  void random_normal(Tensor y, const RandomKey& key, const std::int64_t* counter);
  /// n samples of a toy density, y [n, 2]; sample i uses elements [32 i, 32 i + 32) of the key.
  void toy_samples(Tensor y, ToyData data, const RandomKey& key, const std::int64_t* counter);
  /// Batch b = key.step + *counter of `table` [N, D] in shuffled epochs without replacement: row i of the batch is
  /// draw g = b y.rows() + i, which is table row permute(g mod N) under a permutation of (seed, stream, g / N) only.
  void gather_batch(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter);

  // ---- images.{cpp,cu} ----------------------------------------------------------------------------------------------
  /// A batch of `table` u8[N, H W C] as numbers. Row i shows the image that gather_batch would copy, or image i of a
  /// table that is in order. For batch b, words of (seed, stream, step b), see kernels/formula/image_noise.h: the image
  /// of row i is mirrored when word 16 + i is below 2^31, and every element has a noise word of its own, whether or not
  /// either is used.
  void gather_images(Tensor y, Tensor table, const RandomKey& key, const std::int64_t* counter,
                     const ImageTransform& transform);

  // ---- classification.{cpp,cu} --------------------------------------------------------------------------------------
  /// losses[i] = log sum_k exp(logits_ik) - logits_i,label(i); grad_logits = (softmax - onehot) / n, the gradient of
  /// the mean loss. logits [n, classes], labels u8[n], losses [n]; grad_logits optional, may alias logits. A label that
  /// is no class makes the loss and the gradient of its row NaN.
  void softmax_cross_entropy(Tensor losses, Tensor grad_logits, Tensor logits, Tensor labels);

 protected:
  // do_<op> for every op above with the same arguments; they have been checked. kernels/ops_list.inc lists them once
  // for this class and for every device (`do_##` glues the prefix to the first token of the signature).
#define BRACKET_OP(...) virtual void do_##__VA_ARGS__ = 0;
#include "kernels/ops_list.inc"
#undef BRACKET_OP

  /// The epilogue of a product C that lies in epilogue.product(y), by the ops that it replaces.
  void finish_product(Tensor y, std::int64_t channels, const ProductEpilogue& epilogue);

 private:
  MathMode math_mode_ = MathMode::fp32;
};

/// Another math mode for a scope.
class MathScope {
 public:
  MathScope(Ops& ops, MathMode mode) noexcept : ops_(ops), previous_(ops.math_mode()) { ops.set_math_mode(mode); }
  ~MathScope() { ops_.set_math_mode(previous_); }
  MathScope(const MathScope&) = delete;
  MathScope& operator=(const MathScope&) = delete;

 private:
  Ops& ops_;
  MathMode previous_;
};

}  // namespace bracket
