#include "simt/tensor_core.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace simt {
namespace {

struct Registers {
  const unsigned* a;
  const unsigned* b;
  detail::Site site;
};

/// `value` of at most 53 bits, without those that a float has no room for.
float cut_off(double value) {
  const float nearest = static_cast<float>(value);
  const bool beyond = std::isfinite(nearest) && std::fabs(static_cast<double>(nearest)) > std::fabs(value);
  return beyond ? std::nextafter(nearest, 0.0f) : nearest;
}

/// c plus the kDepth products, see the header.
template <unsigned kDepth>
float sum_of_products(float c, const float* a, const float* b) {
  double addends[kDepth + 1];
  double largest = std::fabs(static_cast<double>(c));
  double plain = c;
  addends[kDepth] = c;
  for (unsigned k = 0; k < kDepth; ++k) {
    addends[k] = static_cast<double>(a[k]) * static_cast<double>(b[k]);
    largest = std::max(largest, std::fabs(addends[k]));
    plain += addends[k];
  }
  if (!std::isfinite(plain) || largest == 0) return static_cast<float>(plain);
  const int last_bit = std::ilogb(largest) - 23;
  const double unit = std::ldexp(1.0, last_bit);
  const double per_unit = std::ldexp(1.0, -last_bit);
  std::int64_t units = 0;
  for (const double addend : addends) units += static_cast<std::int64_t>(addend * per_unit);
  return cut_off(static_cast<double>(units) * unit);
}

float tf32_value(unsigned bits) { return std::bit_cast<float>(bits & 0xffffe000u); }
float bf16_value(unsigned half) { return std::bit_cast<float>(half << 16); }

void read_operands(const Registers& lane, int g, int t, float (&a)[16][8], float (&b)[8][8]) {
  a[g][t] = tf32_value(lane.a[0]);
  a[g + 8][t] = tf32_value(lane.a[1]);
  a[g][t + 4] = tf32_value(lane.a[2]);
  a[g + 8][t + 4] = tf32_value(lane.a[3]);
  b[g][t] = tf32_value(lane.b[0]);  // the columns of B as rows
  b[g][t + 4] = tf32_value(lane.b[1]);
}

void read_operands(const Registers& lane, int g, int t, float (&a)[16][16], float (&b)[8][16]) {
  for (int half = 0; half < 2; ++half) {
    const int shift = 16 * half;
    const auto value = [shift](unsigned bits) { return bf16_value(bits >> shift & 0xffffu); };
    a[g][2 * t + half] = value(lane.a[0]);
    a[g + 8][2 * t + half] = value(lane.a[1]);
    a[g][2 * t + 8 + half] = value(lane.a[2]);
    a[g + 8][2 * t + 8 + half] = value(lane.a[3]);
    b[g][2 * t + half] = value(lane.b[0]);
    b[g][2 * t + 8 + half] = value(lane.b[1]);
  }
}

template <unsigned kDepth>
void multiply(unsigned mask, const detail::LaneArguments* lanes) {
  const auto registers = [lanes](int lane) -> const Registers& {
    return *static_cast<const Registers*>(lanes[lane].in);
  };
  if (mask != 0xffffffffu) {
    detail::fail(registers(std::countr_zero(mask)).site, "mma.sync needs all 32 lanes of a warp, which has 0x%08x",
                 mask);
  }
  float a[16][kDepth];
  float b[8][kDepth];
  for (int lane = 0; lane < 32; ++lane) read_operands(registers(lane), lane / 4, lane % 4, a, b);
  for (int lane = 0; lane < 32; ++lane) {
    auto* const d = static_cast<float*>(lanes[lane].out);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8;
      const int column = lane % 4 * 2 + i % 2;
      d[i] = sum_of_products<kDepth>(d[i], a[row], b[column]);
    }
  }
}

constexpr unsigned kAllLanes = 0xffffffffu;

}  // namespace

void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const char* site_file,
                      int site_line) {
  const Registers registers{a, b, SIMT_SITE};
  detail::warp_collective(kAllLanes, "mma.m16n8k8.tf32", multiply<8>, {&registers, d, 0, 0}, false, SIMT_SITE);
}

void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const char* site_file,
                       int site_line) {
  const Registers registers{a, b, SIMT_SITE};
  detail::warp_collective(kAllLanes, "mma.m16n8k16.bf16", multiply<16>, {&registers, d, 0, 0}, false, SIMT_SITE);
}

}  // namespace simt
