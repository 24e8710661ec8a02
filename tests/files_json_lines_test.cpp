#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/json_lines.h"

namespace bracket {
namespace {

TEST(MetricsLine, ExactText) {
  const std::vector<NamedValue> values = {{"time_s", 0.1},
                                          {"loss", -1.0},
                                          {"nan", std::numeric_limits<double>::quiet_NaN()},
                                          {"inf", -std::numeric_limits<double>::infinity()},
                                          {"a\"b", 1e300}};
  EXPECT_EQ(metrics_line(12, values), R"({"step":12,"time_s":0.1,"loss":-1.0,"nan":null,"inf":null,"a\"b":1e+300})");
  EXPECT_EQ(metrics_line(-1, {}), R"({"step":-1})");
}

TEST(MetricsLine, EveryDoubleReadsBackBitForBit) {
  std::uint64_t bits = 0x9e3779b97f4a7c15u;
  std::vector<double> values = {0.0,
                                -0.0,
                                std::numeric_limits<double>::denorm_min(),
                                -std::numeric_limits<double>::min(),
                                std::numeric_limits<double>::max(),
                                1.0 / 3.0,
                                9007199254740993.0};
  while (values.size() < 2000) {
    bits = bits * 6364136223846793005u + 1442695040888963407u;
    const double value = std::bit_cast<double>(bits);
    if (std::isfinite(value)) values.push_back(value);
  }
  for (const double value : values) {
    const nlohmann::json object = nlohmann::json::parse(metrics_line(1, std::vector<NamedValue>{{"x", value}}));
    EXPECT_EQ(std::bit_cast<std::uint64_t>(object["x"].get<double>()), std::bit_cast<std::uint64_t>(value)) << value;
  }
}

TEST(MetricsLine, RefusesBadNames) {
  const auto line = [](std::vector<NamedValue> values) { return metrics_line(0, values); };
  expect_error<InvalidArgument>([&] { line({{"a", 1}, {"a", 2}}); }, {"'a' appears twice"});
  expect_error<InvalidArgument>([&] { line({{"step", 1}}); }, {"'step' appears twice"});
  expect_error<InvalidArgument>([&] { line({{"\xff", 1}}); }, {"UTF-8"});
}

class JsonLines : public FolderTest {
 protected:
  // Cuts `before` at `last_step` and expects `after`; returns the number of lines kept.
  std::int64_t cut(const std::string& before, std::int64_t last_step, const std::string& after) {
    put(at("m"), before);
    const JsonLinesCut result = cut_json_lines(at("m"), last_step);
    EXPECT_EQ(content(at("m")), after) << "from: " << before;
    const std::string with_newline = before.ends_with('\n') || before.empty() ? before : before + "\n";
    EXPECT_GE(result.dropped_bytes, 0);
    EXPECT_LE(result.dropped_bytes, static_cast<std::int64_t>(with_newline.size() - after.size()));
    EXPECT_EQ(names(), std::vector<std::string>{"m"});
    return result.kept_lines;
  }
};

TEST_F(JsonLines, AppendsWholeLines) {
  {
    JsonLinesFile file(at("m"));
    file.append(R"({"step":1})");
    file.sync();
    expect_error<InvalidArgument>([&] { file.append("{}\n{}"); }, {"newline"});
  }
  JsonLinesFile(at("m")).append(R"({"step":2})");
  EXPECT_EQ(content(at("m")), "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(JsonLines, FullDiskLeavesNoPartOfALine) {
  put(at("m"), "{\"step\":1}\n");
  for (std::size_t capacity = 0; capacity < 11; ++capacity) {
    SmallDiskCalls calls(4, capacity);
    JsonLinesFile file(at("m"), calls);
    expect_error<DataError>([&] { file.append(R"({"step":2})"); }, {"No space left"});
    EXPECT_EQ(content(at("m")), "{\"step\":1}\n") << capacity;
  }
}

TEST_F(JsonLines, RefusesToAppendToATornLine) {
  put(at("m"), "{\"step\":1}\n{\"st");
  expect_error<DataError>([&] { JsonLinesFile file(at("m")); }, {"middle of a line", "15 bytes", "resume"});
  cut_json_lines(at("m"), 1);
  JsonLinesFile(at("m")).append(R"({"step":2})");
  EXPECT_EQ(content(at("m")), "{\"step\":1}\n{\"step\":2}\n");
  expect_error<DataError>([&] { JsonLinesFile file(folder_); }, {"folder"});
  expect_error<DataError>([&] { JsonLinesFile file(at("absent/m")); }, {"create the folder"});
}

TEST_F(JsonLines, CutKeepsTheStepsOfTheCheckpoint) {
  const std::string one = "{\"step\":10,\"x\":1}\n";
  const std::string two = "{\"x\":{\"step\":99},\"step\":20}\n";
  const std::string three = "{\"step\":30}\n";
  EXPECT_EQ(cut(one + two + three, 9, ""), 0);
  EXPECT_EQ(cut(one + two + three, 10, one), 1);
  EXPECT_EQ(cut(one + two + three, 29, one + two), 2);
  EXPECT_EQ(cut(one + two + three, 30, one + two + three), 3);
  EXPECT_EQ(cut("", 5, ""), 0);
  EXPECT_EQ(cut(one + three + two, 25, one), 1);
}

TEST_F(JsonLines, CutDropsWhatAnInterruptedWriteLeft) {
  const std::string one = "{\"step\":1,\"x\":2}\n";
  const std::string two = "{\"step\":2,\"x\":34}";
  for (std::size_t length = 0; length < two.size(); ++length) EXPECT_EQ(cut(one + two.substr(0, length), 5, one), 1);
  EXPECT_EQ(cut(one + two, 5, one + two + "\n"), 2) << "a whole object without its newline is kept";
  EXPECT_EQ(cut(one + two, 1, one), 1);
  EXPECT_EQ(cut(one + std::string(4096, '\0'), 5, one), 1) << "blocks never written before a power cut";
  EXPECT_EQ(cut(one + "garbage\n\n", 5, one), 1);
  EXPECT_EQ(cut(one + "garbage\n" + two + "\n", 1, one), 1);
}

TEST_F(JsonLines, CutRefusesToLoseAReadableLine) {
  const std::string one = "{\"step\":1}\n";
  const std::string three = "{\"step\":3}\n";
  for (const std::string bad : {"garbage", "", "[1]", "{\"x\":1}", "{\"step\":\"2\"}", "{\"step\":2.5}",
                                "{\"step\":18446744073709551615}", "{\"step\":1e999}"}) {
    const std::string text = one + bad + "\n" + three;
    put(at("m"), text);
    expect_error<DataError>([&] { cut_json_lines(at("m"), 5); },
                            {at("m").string() + ":2:", "line 3", "repair or remove"});
    EXPECT_EQ(content(at("m")), text);
  }
}

TEST_F(JsonLines, CutOfAnAbsentFileAndFailingCalls) {
  EXPECT_EQ(cut_json_lines(at("absent"), 5).kept_lines, 0);
  EXPECT_TRUE(names().empty());
  const std::string text = "{\"step\":1}\n{\"step\":2}\n";
  for (int fail_at = 1; fail_at <= 7; ++fail_at) {
    put(at("m"), text);
    FailingCalls calls(fail_at, ENOSPC);
    constexpr int kCloseAfterReading = 2;
    if (fail_at == kCloseAfterReading) continue;
    EXPECT_THROW(cut_json_lines(at("m"), 1, calls), DataError) << fail_at;
    EXPECT_EQ(content(at("m")), text) << fail_at;
  }
}

}  // namespace
}  // namespace bracket
