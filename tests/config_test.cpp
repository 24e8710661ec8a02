// Configurations as JSON and changes to them; the text functions they rest on.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bracket/preset.h"
#include "config_equality.h"
#include "host/config/override.h"
#include "host/core/text.h"

namespace bracket {
namespace {

using Json = nlohmann::ordered_json;

// No value is a default, no two values of one type are equal where that can be had, every kind of layer occurs.
NetworkSpec every_layer() {
  LinearSpec linear{7};
  linear.bias = false;
  linear.spectral_norm = true;
  linear.weight_gain = 2.5;
  linear.bias_bound = 0.3;
  linear.identity_start = true;
  NetworkSpec spec;
  spec.input_size = 5;
  spec.layers = {linear,
                 ActivationSpec{Activation::prelu, 0.21, 0.37},
                 BatchNormSpec{0.4, 1e-3, 0.06},
                 AffineSpec{{1.5, -0.1, 1e-300}, {0.1, 2, std::nextafter(3.0, 4.0)}},
                 FourierFeaturesSpec{9, 0.7},
                 MonotoneCouplingSpec{3, 4, 6, {11, 13}, 1.25, 0.75},
                 ConfinementSpec{2, 0.6, 17, 3.5},
                 Conv2dSpec{14, 15, 16, 18, false, true, 0.19},
                 ConvTranspose2dSpec{20, 21, 22, 23, 24, false, true, 0.25},
                 AveragePoolSpec{26},
                 SumPoolSpec{27},
                 MaxPoolSpec{28},
                 UpsampleSpec{29},
                 FlattenSpec{},
                 UnflattenSpec{30, 31, 32},
                 ResidualSpec{{ResidualSpec{{FlattenSpec{}}, {}}, SumPoolSpec{33}}, {UpsampleSpec{34}}},
                 RationalQuadraticCouplingSpec{38, 39, 40, {41, 42}, 4.5, 0.011, 0.012, 0.013},
                 PermutationSpec{true, 43},
                 RotationSpec{44}};
  spec.image = ImageShape{35, 36, 37};
  return spec;
}

TrainerConfig every_field() {
  TrainerConfig c;
  c.energy.network = every_layer();
  c.energy.optimizer = {1e-3, 0.1, 0.2, 1e-5, 0.01, 4};
  c.energy.math = {MathMode::tf32x3, MathMode::bf16};
  c.generator.network = every_layer();
  c.generator.network.input_size = 6;
  c.generator.optimizer = {2e-3, 0.3, 0.4, 2e-5, 0.02, 5};
  c.generator.math = {MathMode::tf32, MathMode::fp32};
  c.penalty = {PenaltyConfig::Kind::zero_gp,
               PenaltyConfig::Rule::power,
               0.15,
               0.25,
               0.35,
               -0.45,
               0.55,
               0.65,
               0.75,
               0.85,
               0.95,
               77};
  c.schedule = {false, 88, 0.125};
  c.data = {true, true, 12345678901};
  c.entropy = {EntropyEstimator::min_singular, 7, true, 5};
  c.entropy_weight = 0.875;
  c.entropy_reuse = true;
  c.ema_decay = 0.9375;
  c.batch_size = 99;
  c.energy_steps = 3;
  c.total_steps = 281474976710655;
  c.seed = std::numeric_limits<std::uint64_t>::max();
  c.dtype = DType::f64;
  return c;
}

TrainerConfig config_with(const std::string& assignment) {
  return trainer_config_from_json(with_override(to_json(every_field()), assignment));
}

void expect_config_refused(const std::string& assignment, const std::vector<std::string>& parts) {
  SCOPED_TRACE(assignment);
  expect_refused([&] { config_with(assignment); }, parts);
}

// ---- text ----------------------------------------------------------------------------------------------------------

TEST(Text, NearestName) {
  const std::vector<std::string> names = {"25gaussians", "8gaussians", "two_moons", "rings", "swiss_roll"};
  EXPECT_EQ(nearest_name("25gausians", names), "25gaussians");
  EXPECT_EQ(nearest_name("gaussians", names), "8gaussians");
  EXPECT_EQ(nearest_name("moons", names), "two_moons");
  EXPECT_EQ(nearest_name("SwissRoll", names), "swiss_roll");
  EXPECT_EQ(nearest_name("rigns", names), "rings");
  EXPECT_EQ(nearest_name("", names), "rings");  // the shortest
  EXPECT_EQ(nearest_name("rings", {"x", "rings"}), "rings");
  EXPECT_EQ(nearest_name("q", {"a", "b"}), "a");                        // the first of equals
  EXPECT_EQ(nearest_name("lr", {"energy", "energy.lr"}), "energy.lr");  // equally near, but holds all that was typed
  EXPECT_EQ(nearest_name("anything", {}), "");
  EXPECT_EQ(nearest_name(std::string(1000000, 'x') + "rings", names), "rings");
}

TEST(Text, NumbersReadBackExactly) {
  EXPECT_EQ(format_number(0.1), "0.1");
  EXPECT_EQ(format_number(25), "25");
  EXPECT_EQ(format_number(1e-6), "1e-06");
  EXPECT_EQ(format_number(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(format_number(-std::numeric_limits<double>::infinity()), "-inf");
  for (const double value :
       {1.0 / 3, std::nextafter(1.0, 2.0), -2.2250738585072014e-308, 5e-324, 1.7976931348623157e308})
    EXPECT_EQ(std::bit_cast<std::uint64_t>(std::strtod(format_number(value).c_str(), nullptr)),
              std::bit_cast<std::uint64_t>(value))
        << format_number(value);
}

// ---- JSON ----------------------------------------------------------------------------------------------------------

TEST(ConfigJson, EveryMemberReturns) {
  EXPECT_EQ(network_spec_from_json(to_json(every_layer())), every_layer());
  EXPECT_EQ(trainer_config_from_json(to_json(every_field())), every_field());
}

TEST(ConfigJson, AnImageIsOptional) {
  NetworkSpec rows{3, {FlattenSpec{}}};
  EXPECT_EQ(to_json(rows).find("image"), std::string::npos);
  EXPECT_EQ(network_spec_from_json(to_json(rows)), rows);
  expect_refused([] { network_spec_from_json(R"({"input_size": 1, "image": {"channels": 1}, "layers": []})"); },
                 {"'height'", "'image'"});
  expect_refused(
      [] {
        network_spec_from_json(
            R"({"input_size": 1, "layers": [{"type": "residual", "body": [{"type": "conv2"}], "skip": []}]})");
      },
      {"'layers.0.body.0.type'", "did you mean 'conv2d'?"});
}

TEST(ConfigJson, EveryEnumeratorReturns) {
  for (int i = 0; i <= static_cast<int>(Activation::softplus); ++i) {
    NetworkSpec spec{1, {ActivationSpec{static_cast<Activation>(i)}}};
    EXPECT_EQ(network_spec_from_json(to_json(spec)), spec) << i;
  }
  EXPECT_EQ(
      network_spec_from_json(R"({"input_size": 1, "layers": [{"type": "activation", "function": "leaky_relu"}]})"),
      (NetworkSpec{1, {ActivationSpec{Activation::leaky_relu}}}));
  TrainerConfig c = every_field();
  c.penalty.offset = 1;
  for (const auto kind : {PenaltyConfig::Kind::bidirectional, PenaltyConfig::Kind::zero_gp}) {
    for (const auto rule :
         {PenaltyConfig::Rule::constant, PenaltyConfig::Rule::power, PenaltyConfig::Rule::controller}) {
      c.penalty.kind = kind;
      c.penalty.rule = rule;
      EXPECT_EQ(trainer_config_from_json(to_json(c)), c);
    }
  }
  EXPECT_EQ(config_with("penalty.rule=controller").penalty.rule, PenaltyConfig::Rule::controller);
  EXPECT_EQ(config_with("penalty.kind=bidirectional").penalty.kind, PenaltyConfig::Kind::bidirectional);
  EXPECT_EQ(config_with("entropy.estimator=exact").entropy.estimator, EntropyEstimator::exact);
  EXPECT_EQ(config_with("entropy.estimator=lobpcg").entropy.estimator, EntropyEstimator::lobpcg);
  EXPECT_EQ(config_with("entropy.estimator=triangular").entropy.estimator, EntropyEstimator::triangular);
  EXPECT_EQ(config_with("precision=f32").dtype, DType::f32);
  for (const MathMode mode : {MathMode::fp32, MathMode::tf32x3, MathMode::tf32, MathMode::bf16}) {
    EXPECT_EQ(config_with(std::string("energy.math=") + math_mode_name(mode)).energy.math.passes, mode);
    EXPECT_EQ(config_with(std::string("generator.jacobian_math=") + math_mode_name(mode)).generator.math.jacobian,
              mode);
  }
  EXPECT_EQ(config_with("generator.math=context").generator.math.passes, std::nullopt);
}

// Changes one leaf of the JSON after the other; reading and writing must bring back that change and nothing else.
TEST(ConfigJson, EveryKeyIsReadAndWritten) {
  const Json original = Json::parse(to_json(every_field()));
  const Json flat = original.flatten();
  int leaves = 0;
  for (const auto& [pointer, value] : flat.items()) {
    if (pointer.ends_with("/type")) continue;  // another type has other keys
    if (value.is_null()) continue;             // an empty array, flattened
    const Json::json_pointer place(pointer);
    Json changed = original;
    if (value.is_boolean()) {
      changed[place] = !value.get<bool>();
    } else if (value.is_number_float()) {
      changed[place] = value.get<double>() * 0.96875;
    } else if (value.is_number()) {
      changed[place] = value.get<std::uint64_t>() - 1;
    } else if (pointer.ends_with("math")) {
      changed[place] = "context";
    } else if (pointer.ends_with("/function")) {
      changed[place] = "tanh";
    } else if (pointer == "/penalty/kind") {
      changed[place] = "bidirectional";
    } else if (pointer == "/penalty/rule") {
      changed[place] = "constant";
    } else if (pointer == "/entropy/estimator") {
      changed[place] = "exact";
    } else {
      ASSERT_EQ(pointer, "/precision");
      changed[place] = "f32";
    }
    EXPECT_EQ(Json::parse(to_json(trainer_config_from_json(changed.dump()))), changed) << pointer;
    EXPECT_NE(changed, original) << pointer;
    ++leaves;
  }
  // 2 x (6 optimizer + 2 math + 1 input_size + 3 image + 6 linear + 3 activation + 3 batch_norm + 6 affine + 2 fourier + 7
  // coupling + 4 confinement + 7 conv2d + 8 conv_transpose2d + 4 pools and upsample + 3 unflatten + 2 in residual) +
  // 12 penalty + 3 schedule + 3 data + 6 entropy + 6
  EXPECT_EQ(leaves, 2 * 79 + 30);
}

TEST(ConfigJson, AbsentKeysKeepDefaults) {
  const std::string network = R"({"input_size": 2, "layers": [{"type": "linear", "features": 1}]})";
  const TrainerConfig read = trainer_config_from_json(R"({"energy": {"network": )" + network +
                                                      R"(}, "generator": {"lr": 0.5, "network": )" + network + "}}");
  TrainerConfig expected;
  expected.energy.network = expected.generator.network = NetworkSpec{2, {LinearSpec{1}}};
  expected.generator.optimizer.lr = 0.5;
  EXPECT_EQ(read, expected);
}

TEST(ConfigJson, IntegersInExponentForm) {
  EXPECT_EQ(config_with("steps=2e4").total_steps, 20000);
  EXPECT_EQ(config_with("seed=1e3").seed, 1000U);
  EXPECT_EQ(config_with("seed=18446744073709551615").seed, std::numeric_limits<std::uint64_t>::max());
  expect_config_refused("seed=18446744073709551616", {"'seed'", "written in digits"});
  expect_config_refused("seed=1e18", {"'seed'", "written in digits", "1e+18"});
  expect_config_refused("seed=-1", {"'seed'", "at least 0", "-1"});
  expect_config_refused("steps=2.5", {"'steps'", "an integer", "2.5"});
  expect_config_refused("steps=18446744073709551615", {"'steps'", "lie in [0, "});
}

TEST(ConfigJson, UnknownWords) {
  const auto with = [](const std::string& pointer, const Json& value) {
    Json json = Json::parse(to_json(every_field()));
    json[Json::json_pointer(pointer)] = value;
    return [text = json.dump()] { trainer_config_from_json(text); };
  };
  expect_refused(with("/energi", 1), {"unknown key 'energi' in the configuration", "did you mean 'energy'?"});
  expect_refused(with("/energy/betta1", 1), {"unknown key 'betta1' in 'energy'", "did you mean 'beta1'?"});
  expect_refused(with("/penalty/tresholds", 1), {"'tresholds' in 'penalty'", "'threshold'?"});
  expect_refused(with("/schedule/cosin", 1), {"'cosin' in 'schedule'", "'cosine'?"});
  expect_refused(with("/data/flips", true), {"'flips' in 'data'", "'flip'?"});
  expect_refused(with("/entropy/wait", 1), {"'wait' in 'entropy'", "'weight'?"});
  expect_refused(with("/generator/network/input", 1), {"'input' in 'generator.network'", "'input_size'?"});
  expect_refused(with("/energy/network/layers/0/feature", 1),
                 {"'feature' in 'energy.network.layers.0'", "'features'?"});
  expect_refused(with("/energy/network/layers/0/type", "liner"),
                 {"'energy.network.layers.0.type'", "'liner'", "'linear'?"});
  expect_refused(with("/energy/network/layers/1/function", "selu"), {"layers.1.function'", "'selu'", "did you mean '"});
  expect_refused(with("/penalty/rule", "controler"), {"'penalty.rule'", "'controler'", "'controller'?"});
  expect_refused(with("/energy/math", "tf-32"), {"'energy.math'", "'tf-32'", "'tf32'?"});
  expect_refused(with("/generator/jacobian_math", "bfloat16"), {"'generator.jacobian_math'", "'bfloat16'", "'bf16'?"});
  expect_refused(with("/generator/jacobian_maths", "bf16"), {"'jacobian_maths' in 'generator'", "'jacobian_math'?"});
  expect_refused(with("/precision", "fp64"), {"'precision'", "'fp64'", "'f64'?"});
  expect_refused(with("/bad\nkey", 1), {"'bad\\x0akey'"});
}

TEST(ConfigJson, WrongTypes) {
  expect_config_refused("energy.lr=quick", {"'energy.lr' must be a number", "a string ('quick')"});
  expect_config_refused("energy.lr=null", {"'energy.lr' must be a number", "null"});
  expect_config_refused("schedule.cosine=1", {"'schedule.cosine' must be true or false", "a number (1)"});
  expect_config_refused("schedule.cosine=True", {"must be true or false", "'True'"});
  expect_config_refused("penalty.rule=3",
                        {"'penalty.rule' must be \"constant\", \"power\" or \"controller\"", "a number (3)"});
  expect_config_refused("penalty=[1]", {"'penalty' must be an object", "an array"});
  expect_config_refused("energy.network.layers={}", {"layers' must be an array of objects", "an object"});
  expect_config_refused("energy.network.layers=[5]", {"'energy.network.layers.0' must be an object", "a number (5)"});
  expect_config_refused("energy.network.layers.3.scale=2", {"layers.3.scale' must be an array of numbers"});
  expect_config_refused("energy.network.layers.3.scale=[1,\"b\"]", {"layers.3.scale.1' must be a number", "'b'"});
  expect_config_refused("energy.network.layers.5.hidden=[4,true]", {"layers.5.hidden.1' must be a number", "true"});
}

TEST(ConfigJson, Ranges) {
  expect_config_refused("energy.lr=-1", {"'energy.lr'", "at least 0", "(-1)"});
  expect_config_refused("energy.beta1=1", {"'energy.beta1'", "lie in [0, 1)", "(1)"});
  expect_config_refused("energy.beta2=1.5", {"[0, 1)", "1.5"});
  expect_config_refused("energy.epsilon=0", {"greater than 0", "(0)"});
  expect_config_refused("energy.clip_norm=-2", {"at least 0"});
  expect_config_refused("energy.weight_decay=-2", {"at least 0"});
  expect_config_refused("penalty.weight=-0.5", {"'penalty.weight'", "at least 0", "-0.5"});
  expect_config_refused("penalty.decay=1", {"[0, 1)"});
  expect_config_refused("penalty.target=0", {"greater than 0"});
  expect_config_refused("penalty.minimum=5", {"'penalty.minimum' is 5", "'penalty.maximum' = 0.75"});
  expect_config_refused("penalty.offset=0", {"'penalty.exponent' is -0.45", "positive offset"});
  expect_config_refused("penalty={\"rule\": \"controller\", \"weight\": 0}", {"'penalty.weight' is 0", "positive"});
  expect_config_refused("schedule.final_fraction=1.1", {"lie in [0, 1]", "1.1"});
  expect_config_refused("schedule.warmup_steps=-1", {"[0, 281474976710655]"});
  expect_config_refused("entropy.weight=-1", {"'entropy.weight'", "at least 0"});
  expect_config_refused("ema_decay=1", {"'ema_decay'", "[0, 1)"});
  expect_config_refused("batch_size=0", {"'batch_size'", "[1, ", "(0)"});
  expect_config_refused("energy_steps=0", {"'energy_steps'", "[1, 10000]"});
  expect_config_refused("energy_steps=10001", {"'energy_steps'", "[1, 10000]", "(10001)"});
  expect_config_refused("energy.network.input_size=0", {"'energy.network.input_size'", "[1, "});
  expect_config_refused("energy.network.layers.0.features=0", {"layers.0.features'", "(0)"});
  expect_config_refused("energy.network.layers.0.features=1e300", {"layers.0.features'", "1e+300"});
  expect_config_refused("energy.network.layers.0.weight_gain=-1", {"at least 0"});
  expect_config_refused("energy.network.layers.2.momentum=2", {"[0, 1]"});
  expect_config_refused("energy.network.layers.2.epsilon=0", {"greater than 0"});
  expect_config_refused("energy.network.layers.3.scale.1=0", {"layers.3.scale.1'", "other than 0"});
  expect_config_refused("energy.network.layers.4.frequencies=0", {"[1, "});
  expect_config_refused("energy.network.layers.4.deviation=-1", {"at least 0"});
  expect_config_refused("energy.network.layers.5.knots=0", {"[1, 65536]"});
  expect_config_refused("energy.network.layers.5.hidden=[0]", {"layers.5.hidden.0'"});
  expect_config_refused("energy.network.layers.5.max_slope=0", {"greater than 0"});
  expect_config_refused("energy.network.layers.5.max_height=0", {"greater than 0"});
  expect_config_refused("energy.network.layers.6.input_layer=-2", {"[-1, "});
  expect_config_refused("energy.network.layers.6.radius=-2", {"at least 0"});
}

TEST(ConfigJson, WhatCannotBeReadIsNotWritten) {
  TrainerConfig c = every_field();
  c.energy.optimizer.lr = std::numeric_limits<double>::quiet_NaN();
  expect_refused([&] { to_json(c); }, {"'energy.lr'", "nan"});
  c = every_field();
  c.penalty.maximum = std::numeric_limits<double>::infinity();
  expect_refused([&] { to_json(c); }, {"'penalty.maximum'", "finite", "inf"});
  c = every_field();
  c.batch_size = -3;
  expect_refused([&] { to_json(c); }, {"'batch_size'", "-3"});
  c = every_field();
  c.penalty.rule = static_cast<PenaltyConfig::Rule>(9);
  expect_refused([&] { to_json(c); }, {"'penalty.rule' holds 9"});
  NetworkSpec spec = every_layer();
  std::get<AffineSpec>(spec.layers[3]).shift[1] = std::numeric_limits<double>::quiet_NaN();
  expect_refused([&] { to_json(spec); }, {"'layers.3.shift.1'", "nan"});
}

TEST(ConfigJson, Malformed) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    SCOPED_TRACE(text.substr(0, 60));
    expect_refused([&] { trainer_config_from_json(text); }, parts);
    expect_refused([&] { network_spec_from_json(text); }, parts);
  };
  refused("", {"malformed JSON", "line 1"});
  refused("{\n\"steps\": 1,}", {"malformed JSON", "line 2"});
  refused("{\"seed\": 1e999}", {"malformed JSON"});
  refused("{\"seed\": \"\xff\"}", {"malformed JSON"});
  refused("{\"seed\": 1, \"steps\": 2, \"seed\": 3}", {"'seed'", "twice"});
  refused("{\"a\": [{\"b\": 1, \"b\": 2}]}", {"'b'", "twice"});
  refused("3", {"the configuration must be an object", "a number (3)"});
  refused(std::string(100000, '['), {"nested", "64"});
  expect_refused([] { trainer_config_from_json("{}"); }, {"'energy' is missing in the configuration"});
  expect_refused([] { trainer_config_from_json("{\"energy\": {}}"); }, {"'network' is missing in 'energy'"});
  expect_refused([] { network_spec_from_json("{\"input_size\": 1}"); }, {"'layers' is missing"});
  expect_refused([] { network_spec_from_json(R"({"input_size": 1, "layers": [{}]})"); },
                 {"'type' is missing in 'layers.0'"});
  expect_refused([] { network_spec_from_json(R"({"input_size": 1, "layers": [{"type": "linear"}]})"); },
                 {"'features' is missing in 'layers.0'"});
  expect_refused([] { network_spec_from_json(R"({"input_size": 1, "layers": [{"type": "affine", "scale": [1]}]})"); },
                 {"'shift' is missing"});
}

// ---- changes -------------------------------------------------------------------------------------------------------

TEST(Override, ReplacesOneValue) {
  TrainerConfig expected = every_field();
  expected.energy.optimizer.lr = 0.1;
  EXPECT_EQ(config_with("energy.lr=0.1"), expected);
  EXPECT_EQ(config_with("  energy.lr = 1e-1 "), expected);
  expected = every_field();
  std::get<LinearSpec>(expected.generator.network.layers[0]).features = 100;
  EXPECT_EQ(config_with("generator.network.layers.0.features=100"), expected);
  expected = every_field();
  std::get<MonotoneCouplingSpec>(expected.energy.network.layers[5]).hidden = {8};
  EXPECT_EQ(config_with("energy.network.layers.5.hidden=[8]"), expected);
  expected = every_field();
  expected.energy.network = {3, {LinearSpec{1}}};
  EXPECT_EQ(config_with(R"(energy.network={"input_size": 3, "layers": [{"type": "linear", "features": 1}]})"),
            expected);
}

TEST(Override, BadAssignments) {
  expect_config_refused("lr=1", {"unknown setting 'lr'", "did you mean 'energy.lr'?"});
  expect_config_refused("energy.learning=1", {"'energy.learning'", "did you mean 'energy."});
  expect_config_refused("penalty.wieght=1", {"did you mean 'penalty.weight'?"});
  expect_config_refused("entropie.weight=1", {"did you mean 'entropy.weight'?"});
  expect_config_refused("energy.lr.value=1", {"unknown setting 'energy.lr.value'", "'energy.lr'?"});
  expect_config_refused("energy.network.layers.19.bias=true", {"'19'", "array of 19 elements", "0 to 18"});
  expect_config_refused("energy.network.layers.-1.bias=true", {"'-1'", "0 to 18"});
  expect_config_refused("energy.network.layers.0x.bias=true", {"'0x'"});
  expect_config_refused("energy.network.layers.99999999999999999999999.bias=true", {"no index"});
  expect_config_refused("energy.network.layers.0.featurs=3", {"did you mean 'energy.network.layers.0.features'?"});
  for (const std::string text : {"", "=", "energy.lr", "energy.lr=", "=3", "  =  "})
    expect_config_refused(text, {"needs a path and a value"});
  expect_config_refused("energy..lr=1", {"unknown setting 'energy..lr'", "'energy.lr'?"});
  expect_config_refused("precision=\xff\xfe", {"'precision'"});
  expect_config_refused("precision=" + std::string(100000, '['), {"'precision'"});
  expect_config_refused("precision=" + std::string(100, '[') + std::string(100, ']'), {"nested"});
}

TEST(Overlay, MergesObjectsAndReplacesTheRest) {
  const std::string base = to_json(every_field());
  TrainerConfig expected = every_field();
  expected.energy.optimizer.lr = 0.5;
  expected.penalty.kind = PenaltyConfig::Kind::bidirectional;
  expected.total_steps = 10;
  expected.generator.network.layers = {LinearSpec{2}};
  const std::string overlay = R"({"energy": {"lr": 0.5}, "penalty": {"kind": "bidirectional"}, "steps": 10,
      "generator": {"network": {"layers": [{"type": "linear", "features": 2}]}}})";
  EXPECT_EQ(trainer_config_from_json(with_overlay(base, overlay)), expected);
  EXPECT_EQ(trainer_config_from_json(with_overlay(base, "{}")), every_field());
  expect_refused([&] { with_overlay(base, "[]"); }, {"must be an object", "an array"});
  expect_refused([&] { with_overlay(base, "{"); }, {"malformed JSON"});
  expect_refused([&] { trainer_config_from_json(with_overlay(base, R"({"energy": {"lrr": 1}})")); },
                 {"'lrr' in 'energy'", "'lr'?"});
}

}  // namespace
}  // namespace bracket
