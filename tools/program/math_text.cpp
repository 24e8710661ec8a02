#include "tools/program/math_text.h"

namespace bracket {
namespace {

std::string mode_text(const std::optional<MathMode>& mode) { return mode ? math_mode_name(*mode) : "context"; }

bool asks_for_fp32(const NetworkMath& math) {
  return math.passes.value_or(MathMode::fp32) == MathMode::fp32 &&
         math.jacobian.value_or(MathMode::fp32) == MathMode::fp32;
}

std::string network_math_text(const NetworkMath& math) {
  if (math.passes == math.jacobian) return mode_text(math.passes);
  return mode_text(math.passes) + " and " + mode_text(math.jacobian) + " for its Jacobian";
}

}  // namespace

std::string math_text(const TrainerConfig& config) {
  const std::string energy = network_math_text(config.energy.math),
                    generator = network_math_text(config.generator.math);
  return energy == generator && config.energy.math.passes == config.energy.math.jacobian
             ? energy
             : "energy " + energy + ", generator " + generator;
}

bool math_is_idle(const TrainerConfig& config, const Device& device) {
  if (asks_for_fp32(config.energy.math) && asks_for_fp32(config.generator.math)) return false;
  return device.kind == DeviceKind::cpu || config.dtype == DType::f64;
}

}  // namespace bracket
