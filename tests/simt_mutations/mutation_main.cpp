// Runs the kernels of mutation_kernels.cu on ragged sizes and compares with plain loops. Exits with 1 at the first
// difference or error, whose text it prints. All values are small whole numbers, so every result is exact.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "mutation_kernels.h"

namespace {

namespace target = bracket::BRACKET_TARGET;

void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

/// Device memory of exactly the size of `host`.
template <class T>
class DeviceVector {
 public:
  explicit DeviceVector(const std::vector<T>& host) : host_(host) {
    require(cudaMalloc(&device_, host_.size() * sizeof(T)), "cudaMalloc");
    require(cudaMemcpyAsync(device_, host_.data(), host_.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  ~DeviceVector() { require(cudaFree(device_), "cudaFree"); }
  DeviceVector(const DeviceVector&) = delete;
  DeviceVector& operator=(const DeviceVector&) = delete;

  T* data() { return device_; }
  void expect(const std::vector<T>& expected, const char* what) {
    require(cudaMemcpyAsync(host_.data(), device_, host_.size() * sizeof(T), cudaMemcpyDeviceToHost), "download");
    require(cudaStreamSynchronize(nullptr), "synchronize");
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (host_[i] == expected[i]) continue;
      std::printf("%s: element %zu is %g, expected %g\n", what, i, static_cast<double>(host_[i]),
                  static_cast<double>(expected[i]));
      std::exit(1);
    }
  }

 private:
  std::vector<T> host_;
  T* device_ = nullptr;
};

std::uint32_t random_state = 1;
int random_below(int bound) {
  random_state = random_state * 1664525u + 1013904223u;
  return static_cast<int>((random_state >> 8) % static_cast<std::uint32_t>(bound));
}

template <class T>
std::vector<T> random_values(std::size_t count) {
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(random_below(9) - 4);
  return values;
}

template <class T>
std::vector<T> unwritten(std::size_t count) {
  return std::vector<T>(count, std::numeric_limits<T>::quiet_NaN());
}

void run_row_moments() {
  for (const int columns : {1, 31, 127, 128, 300}) {
    constexpr int kRows = 3;
    const auto values = random_values<float>(static_cast<std::size_t>(kRows * columns));
    std::vector<float> sums(kRows), squares(kRows);
    for (std::size_t i = 0; i < values.size(); ++i) {
      sums[i / static_cast<std::size_t>(columns)] += values[i];
      squares[i / static_cast<std::size_t>(columns)] += values[i] * values[i];
    }
    DeviceVector<float> device_values(values), device_sums(unwritten<float>(kRows)),
        device_squares(unwritten<float>(kRows));
    require(
        target::row_moments(device_sums.data(), device_squares.data(), device_values.data(), kRows, columns, nullptr),
        "row_moments");
    device_sums.expect(sums, "row_moments, sums");
    device_squares.expect(squares, "row_moments, squares");
  }
}

void run_matrix_product(int m, int n, int k, int padding) {
  const int ld_a = k + padding, ld_b = n + padding, ld_c = n;
  const auto at = [](int row, int ld, int column) { return static_cast<std::size_t>(row * ld + column); };
  auto a = random_values<float>(at(m - 1, ld_a, k));
  auto b = random_values<float>(at(k - 1, ld_b, n));
  std::vector<float> c(at(m, ld_c, 0));
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      for (int l = 0; l < k; ++l) c[at(i, ld_c, j)] += a[at(i, ld_a, l)] * b[at(l, ld_b, j)];
    }
  }
  DeviceVector<float> device_a(a), device_b(b), device_c(unwritten<float>(c.size()));
  require(target::matrix_product(device_c.data(), device_a.data(), device_b.data(), m, n, k, ld_c, ld_a, ld_b, nullptr),
          "matrix_product");
  device_c.expect(c, "matrix_product");
}

void run_histogram() {
  for (const std::size_t num_values : {1u, 95u, 1000u}) {
    constexpr int kBins = 7;
    const auto values = random_values<int>(num_values);
    std::vector<int> counts(kBins + 1, 5);
    DeviceVector<int> device_values(values), device_counts(counts);
    for (const int value : values) ++counts[static_cast<std::size_t>(value >= 0 && value < kBins ? value : kBins)];
    require(target::histogram(device_counts.data(), device_values.data(), static_cast<std::int64_t>(num_values), kBins,
                              nullptr),
            "histogram");
    device_counts.expect(counts, "histogram");
  }
}

void run_reverse_runs() {
  for (const std::size_t num_values : {1u, 33u, 64u, 203u}) {
    const auto values = random_values<double>(num_values);
    std::vector<double> reversed = values;
    for (std::size_t first = 0; first < num_values; first += 32) {
      const auto begin = reversed.begin() + static_cast<std::ptrdiff_t>(first);
      std::reverse(begin, begin + static_cast<std::ptrdiff_t>(std::min<std::size_t>(32, num_values - first)));
    }
    DeviceVector<double> device_in(values), device_out(unwritten<double>(num_values));
    require(target::reverse_runs(device_out.data(), device_in.data(), static_cast<std::int64_t>(num_values), nullptr),
            "reverse_runs");
    device_out.expect(reversed, "reverse_runs");
  }
}

}  // namespace

int main() {
  run_row_moments();
  run_matrix_product(1, 1, 1, 0);
  run_matrix_product(16, 16, 32, 0);
  run_matrix_product(37, 21, 50, 0);
  run_matrix_product(17, 33, 70, 3);
  run_histogram();
  run_reverse_runs();
  return 0;
}
