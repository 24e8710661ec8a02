// Convolutions on the host in double, and runs of the ops on a context.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "math_mode_fixture.h"

namespace bracket::test {

struct ConvolutionShape {
  std::int64_t rows;
  Convolution map;
};

inline std::string text(const ConvolutionShape& s) {
  const Convolution& m = s.map;
  return std::to_string(s.rows) + " rows of " + std::to_string(m.in_height) + " x " + std::to_string(m.in_width) +
         " x " + std::to_string(m.in_channels) + " -> " + std::to_string(m.out_channels) + ", kernel " +
         std::to_string(m.kernel) + ", stride " + std::to_string(m.stride) + ", padding " + std::to_string(m.padding);
}

/// Operands of one layer on the host, rounded to the dtype, and what the gradients start from.
struct ConvolutionLayer {
  HostMatrix x, w, grad_y, start_x, start_w;
  ConvolutionLayer(const ConvolutionShape& s, DType dtype)
      : x(random_matrix(s.rows, s.map.in_columns(), 1).rounded(dtype)),
        w(random_matrix(s.map.out_channels, s.map.weight_columns(), 2).rounded(dtype)),
        grad_y(random_matrix(s.rows, s.map.out_columns(), 3).rounded(dtype)),
        start_x(random_matrix(s.rows, s.map.in_columns(), 4).rounded(dtype)),
        start_w(random_matrix(s.map.out_channels, s.map.weight_columns(), 5).rounded(dtype)) {}
};

/// A convolution is one trilinear form, the sum of grad_y[out] x[in] w[weight] over all terms; y, grad_x and grad_w
/// are its derivatives.
struct ConvolutionReference {
  ProductReference y, grad_x, grad_w;

  ConvolutionReference(const ConvolutionShape& s, const ConvolutionLayer& layer, bool accumulate)
      : y(s.rows, s.map.out_columns(), nullptr),
        grad_x(s.rows, s.map.in_columns(), accumulate ? &layer.start_x : nullptr),
        grad_w(s.map.out_channels, s.map.weight_columns(), accumulate ? &layer.start_w : nullptr) {
    const Convolution& m = s.map;
    const std::int64_t out_height = (m.in_height + 2 * m.padding - m.kernel) / m.stride + 1;
    const std::int64_t out_width = (m.in_width + 2 * m.padding - m.kernel) / m.stride + 1;
    for (std::int64_t i = 0; i < s.rows; ++i) {
      for (std::int64_t out_y = 0; out_y < out_height; ++out_y) {
        for (std::int64_t out_x = 0; out_x < out_width; ++out_x) {
          for (std::int64_t ky = 0; ky < m.kernel; ++ky) {
            for (std::int64_t kx = 0; kx < m.kernel; ++kx) {
              const std::int64_t in_y = out_y * m.stride + ky - m.padding;
              const std::int64_t in_x = out_x * m.stride + kx - m.padding;
              if (in_y < 0 || in_y >= m.in_height || in_x < 0 || in_x >= m.in_width) continue;
              const std::int64_t in = (in_y * m.in_width + in_x) * m.in_channels;
              const std::int64_t out = (out_y * out_width + out_x) * m.out_channels;
              add_tap(layer, i, out, in, (ky * m.kernel + kx) * m.in_channels, m);
            }
          }
        }
      }
    }
  }

  void add_tap(const ConvolutionLayer& layer, std::int64_t i, std::int64_t out, std::int64_t in, std::int64_t weight,
               const Convolution& m) {
    for (std::int64_t o = 0; o < m.out_channels; ++o) {
      for (std::int64_t c = 0; c < m.in_channels; ++c) {
        y.add(i, out + o, layer.x(i, in + c) * layer.w(o, weight + c));
        grad_x.add(i, in + c, layer.grad_y(i, out + o) * layer.w(o, weight + c));
        grad_w.add(o, weight + c, layer.grad_y(i, out + o) * layer.x(i, in + c));
      }
    }
  }
};

/// Runs the ops on a context. Results start as NaN, or as `initial` to accumulate onto.
struct ConvolutionRunner {
  Context& context;
  Convolution map;
  DType dtype;
  std::int64_t padding = 0;

  HostMatrix forward(const HostMatrix& x, const HostMatrix& w) const {
    const DeviceTensor dx = upload(context, x, dtype, padding);
    const DeviceTensor dw = upload(context, w, dtype, padding);
    const DeviceTensor y = empty_matrix(context, dtype, x.rows, map.out_columns(), padding);
    context.ops().conv2d_forward(y, dx, dw, map);
    return download(context, y);
  }
  HostMatrix reverse_data(const HostMatrix& grad_y, const HostMatrix& w, const HostMatrix* initial = nullptr) const {
    const DeviceTensor dy = upload(context, grad_y, dtype, padding);
    const DeviceTensor dw = upload(context, w, dtype, padding);
    const DeviceTensor grad_x = initial ? upload(context, *initial, dtype, padding)
                                        : empty_matrix(context, dtype, grad_y.rows, map.in_columns(), padding);
    context.ops().conv2d_reverse_data(grad_x, dy, dw, map, initial ? Update::accumulate : Update::overwrite);
    return download(context, grad_x);
  }
  HostMatrix reverse_weights(const HostMatrix& grad_y, const HostMatrix& x, const HostMatrix* initial = nullptr) const {
    const DeviceTensor dy = upload(context, grad_y, dtype, padding);
    const DeviceTensor dx = upload(context, x, dtype, padding);
    const DeviceTensor grad_w = initial ? upload(context, *initial, dtype, padding)
                                        : empty_matrix(context, dtype, map.out_channels, map.weight_columns(), padding);
    const std::int64_t elements = map.weights_workspace(x.rows);
    const DeviceTensor workspace = elements > 0 ? empty(context, dtype, {elements}) : DeviceTensor();
    context.ops().conv2d_reverse_weights(grad_w, dy, dx, map, initial ? Update::accumulate : Update::overwrite,
                                         workspace);
    return download(context, grad_w);
  }
};

}  // namespace bracket::test
