#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/csv.h"
#include "host/files/npy.h"
#include "host/files/table.h"

namespace bracket {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::string npy_of(const std::string& header, const std::string& data, int major = 1) {
  std::string text = std::string("\x93NUMPY") + static_cast<char>(major) + '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) text += static_cast<char>((header.size() >> (8 * i)) & 255);
  return text + header + data;
}

std::string header_of(const std::string& dtype, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + dtype + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
}

template <typename ElementT>
std::string raw(const std::vector<ElementT>& values, bool big_endian = false) {
  std::string text;
  for (const ElementT value : values) {
    auto bytes = std::bit_cast<std::array<char, sizeof(ElementT)>>(value);
    if (big_endian) std::reverse(bytes.begin(), bytes.end());
    text.append(bytes.data(), bytes.size());
  }
  return text;
}

Table npy(const std::string& text) { return parse_npy(bytes_of(text), "some.npy"); }

void expect_npy_refused(const std::string& text, const std::vector<std::string>& parts) {
  std::vector<std::string> all = parts;
  all.push_back("'some.npy': ");
  expect_error<DataError>([&] { npy(text); }, all);
}

TEST(Npy, BothTypesByteOrdersAndVersions) {
  const std::vector<float> floats = {1.5f, -2.0f, 0.1f, 3e38f, 1e-45f, -0.0f};
  const std::vector<double> doubles = {1.5, -2.0, 0.1, 1e308, 5e-324, -0.0};
  for (const int major : {1, 2, 3}) {
    for (const bool big : {false, true}) {
      const std::string order = big ? ">" : "<";
      const Table single = npy(npy_of(header_of(order + "f4", "(3, 2)"), raw(floats, big), major));
      EXPECT_EQ(single.rows, 3);
      EXPECT_EQ(single.cols, 2);
      EXPECT_EQ(single.values, std::vector<double>(floats.begin(), floats.end()));
      EXPECT_TRUE(std::signbit(single.values.back()));
      const Table both = npy(npy_of(header_of(order + "f8", "(3, 2)"), raw(doubles, big), major));
      EXPECT_EQ(both.values, doubles);
    }
  }
}

TEST(Npy, FortranOrderIsTransposedAndRankOneIsAColumn) {
  const std::vector<double> columns = {1, 2, 3, 10, 20, 30};
  const Table table = npy(npy_of(header_of("<f8", "(3, 2)", "True"), raw(columns)));
  EXPECT_EQ(table.values, (std::vector<double>{1, 10, 2, 20, 3, 30}));
  for (const std::string order : {"False", "True"}) {
    const Table column = npy(npy_of(header_of("<f8", "(6,)", order), raw(columns)));
    EXPECT_EQ(column.rows, 6);
    EXPECT_EQ(column.cols, 1);
    EXPECT_EQ(column.values, columns);
  }
}

TEST(Npy, HeaderInAnyPythonSpelling) {
  const std::string data = raw<double>({1, 2});
  for (const std::string header : {"{'shape': (1, 2), 'fortran_order': False, 'descr': '<f8'}",
                                   "{\"descr\":\"<f8\",\"fortran_order\":False,\"shape\":(1,2)}",
                                   " { 'descr' : '<f8' , 'fortran_order' : False , 'shape' : ( 1L , 2L , ) , } \n"}) {
    EXPECT_EQ(npy(npy_of(header, data)).values, (std::vector<double>{1, 2})) << header;
  }
}

TEST(Npy, WriterGivesTheBytesOfTheFormat) {
  const std::vector<float> values = {1.0f, -2.0f};
  const std::array<std::int64_t, 2> shape = {1, 2};
  const std::vector<std::byte> bytes = serialize_npy(values, shape);
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
  header.append(128 - 10 - 1 - header.size(), ' ');
  const std::string expected = npy_of(header + "\n", raw(values));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), expected);
}

TEST(Npy, RoundTrip) {
  for (const std::int64_t rows : {1, 2, 31, 1000}) {
    for (const std::int64_t cols : {1, 3, 64}) {
      std::vector<double> values;
      for (std::int64_t i = 0; i < rows * cols; ++i) values.push_back(std::sin(static_cast<double>(i)));
      const std::array<std::int64_t, 2> shape = {rows, cols};
      const std::vector<std::byte> bytes = serialize_npy(values, shape);
      EXPECT_EQ((bytes.size() - values.size() * 8) % 64, 0u);
      const Table table = parse_npy(bytes, "f");
      EXPECT_EQ(table.rows, rows);
      EXPECT_EQ(table.cols, cols);
      EXPECT_EQ(table.values, values);
    }
  }
  const std::array<std::int64_t, 1> empty = {0};
  EXPECT_EQ(serialize_npy(std::span<const double>{}, empty).size() % 64, 0u);
}

TEST(Npy, WriterRefusesShapesThatDoNotFit) {
  const std::vector<double> values(6);
  const auto write = [&](const std::vector<std::int64_t>& shape) { serialize_npy(values, shape); };
  for (const std::vector<std::int64_t>& shape :
       std::vector<std::vector<std::int64_t>>{{}, {5}, {2, 2}, {-2, -3}, {1, 2, 3}, {INT64_MAX, INT64_MAX}}) {
    expect_error<InvalidArgument>([&] { write(shape); }, {"npy: shape (", "6 values", "rank 1 or 2"});
  }
}

TEST(NpyHostile, SignatureVersionAndHeader) {
  expect_npy_refused("", {"signature"});
  expect_npy_refused("PK\x03\x04", {"signature"});
  expect_npy_refused("\x93NUMPY", {"6 bytes", "truncated"});
  expect_npy_refused(npy_of("{}", "", 4), {"version 4.0", "1.0, 2.0 and 3.0"});
  expect_npy_refused(std::string("\x93NUMPY\x01\x00\xff", 9), {"truncated"});
  expect_npy_refused(std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{", 13), {"4294967307", "13 bytes", "truncated"});
  for (const std::string header :
       {"", "{", "{}", "[]", "{'descr': '<f8'}", "{'descr': '<f8", "{'descr': '<f8', 'descr': '<f8'}",
        "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}", "{'descr': '<f8', 'fortran_order': False, 'shape': 1}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1.5,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,}",
        "{'descr': '<f8' 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'x': 1}"}) {
    expect_npy_refused(npy_of(header, std::string(8, '\0')), {"header is malformed", "numpy.save"});
  }
}

TEST(NpyHostile, DtypesAreNamed) {
  for (const auto& [dtype, name] : std::vector<std::pair<std::string, std::string>>{{"<i8", "int64"},
                                                                                    {"|u1", "uint8"},
                                                                                    {"|b1", "bool"},
                                                                                    {"<f2", "float16"},
                                                                                    {"<c8", "complex64"},
                                                                                    {"|O", "Python objects"},
                                                                                    {"<U5", "<U5"},
                                                                                    {"", "''"}}) {
    expect_npy_refused(npy_of(header_of(dtype, "(1, 1)"), "12345678"), {name, "float32 and float64", "astype"});
  }
  expect_npy_refused(npy_of("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", "1234"),
                     {"'structured'"});
}

TEST(NpyHostile, ShapesAndSizes) {
  const auto with_shape = [](const std::string& shape) {
    return npy_of(header_of("<f8", shape), std::string(16, '\0'));
  };
  EXPECT_EQ(npy(with_shape("(2, 1)")).rows, 2);
  expect_npy_refused(with_shape("()"), {"rank 0", "(N, D)"});
  expect_npy_refused(with_shape("(1, 2, 1)"), {"(1, 2, 1)", "rank 3", "reshape"});
  expect_npy_refused(with_shape("(0, 2)"), {"(0, 2) is empty"});
  expect_npy_refused(with_shape("(2, 0)"), {"(2, 0) is empty"});
  expect_npy_refused(with_shape("(3, 1)"), {"needs 24 bytes", "the file has 16", "truncated"});
  expect_npy_refused(with_shape("(1, 1)"), {"needs 8 bytes", "the file has 16", "foreign bytes"});
  expect_npy_refused(with_shape("(4294967296, 4294967296)"), {"more than 2^63"});
  expect_npy_refused(with_shape("(9223372036854775807, 1)"), {"more than 2^63"});
  expect_npy_refused(with_shape("(1152921504606846975, 1)"), {"needs 9223372036854775800 bytes"});
}

TEST(NpyHostile, ValuesThatAreNotFiniteNameTheirPlace) {
  expect_npy_refused(npy_of(header_of("<f8", "(2, 2)"), raw<double>({0, 1, 2, kNaN})), {"row 1, column 1", "NaN"});
  expect_npy_refused(npy_of(header_of("<f8", "(2, 2)", "True"), raw<double>({0, kInfinity, 2, 3})),
                     {"row 1, column 0", "is inf"});
  expect_npy_refused(npy_of(header_of(">f4", "(2,)"), raw<float>({0, -std::numeric_limits<float>::infinity()}, true)),
                     {"row 1, column 0", "-inf"});
}

TEST(NpyHostile, TruncatedAnywhereAndFlippedAnywhere) {
  const std::string text = npy_of(header_of("<f4", "(2, 3)"), raw<float>({1, 2, 3, 4, 5, 6}));
  for (std::size_t length = 0; length < text.size(); ++length) {
    const std::vector<char> cut(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_THROW(parse_npy(std::as_bytes(std::span(cut)), "f"), DataError) << length;
  }
  int num_refused = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(value);
      try {
        const Table table = npy(flipped);
        EXPECT_EQ(table.values.size(), static_cast<std::size_t>(table.rows * table.cols));
        for (const double x : table.values) EXPECT_TRUE(std::isfinite(x));
      } catch (const DataError&) {
        ++num_refused;
      }
    }
  }
  EXPECT_GT(num_refused, 100 * static_cast<int>(text.size()));
}

Table csv(const std::string& text) { return parse_csv(text, "some.csv"); }

void expect_csv_refused(const std::string& text, const std::vector<std::string>& parts) {
  std::vector<std::string> all = parts;
  all.push_back("some.csv");
  expect_error<DataError>([&] { csv(text); }, all);
}

TEST(Csv, NumbersInEverySpelling) {
  const Table table = csv("1, +2.5 ,-3e-2\n\t.5,7.,-0\n1E+3,5e-324,0.1\n");
  EXPECT_EQ(table.rows, 3);
  EXPECT_EQ(table.values, (std::vector<double>{1, 2.5, -0.03, 0.5, 7, 0, 1000, 5e-324, 0.1}));
  EXPECT_TRUE(std::signbit(table.values[5]));
}

TEST(Csv, LinesBlanksAndHeaders) {
  const std::vector<double> expected = {1, 2, 3, 4};
  for (const std::string text :
       {"1,2\n3,4\n", "1,2\n3,4", "1,2\r\n3,4\r\n", "\n\n1,2\n \t\r\n3,4\n\n", "x,y\n1,2\n3,4\n", "# x, y\n1,2\n3,4\n",
        "\xef\xbb\xbf"
        "1,2\n3,4\n",
        "\xef\xbb\xbf"
        "\"a, b\",\"c\"\r\n1,2\r\n3,4",
        ",y\n1,2\n3,4", " 1 ,\t2\n3 , 4 \n"}) {
    const Table table = csv(text);
    EXPECT_EQ(table.rows, 2) << text;
    EXPECT_EQ(table.cols, 2) << text;
    EXPECT_EQ(table.values, expected) << text;
  }
}

TEST(Csv, RowsFieldsAndNumbersNameTheirPlace) {
  expect_csv_refused("", {"no row of numbers"});
  expect_csv_refused("\n \n", {"no row of numbers"});
  expect_csv_refused("x,y\n", {"no row of numbers"});
  expect_csv_refused("1,2\n3\n", {":2:1:", "1 fields", "line 1 has 2"});
  expect_csv_refused("x,y\n\n1,2\n3,4,5\n", {":4:5:", "3 fields", "line 1 has 2"});
  expect_csv_refused("x\n1,2\n", {":2:3:", "2 fields", "line 1 has 1"});
  expect_csv_refused("1,2\n3, abc\n", {":2:4:", "field 2 is 'abc'", "not a number"});
  expect_csv_refused("1,abc\n", {":1:3:", "field 2 is 'abc'"});
  expect_csv_refused("1,2\n3,\n", {":2:3:", "field 2 is ''"});
  expect_csv_refused("1;2\n3;4\n", {"some.csv:2:1:", "'3;4'", "separated by commas"});
  expect_csv_refused("1,2\n\"3\",4\n", {":2:1:", "'\"3\"'"});
  expect_csv_refused("1,2\n3,0x10\n", {"'0x10'"});
  expect_csv_refused("1,2\n3,+-4\n", {"'+-4'"});
  expect_csv_refused("1,2\n3,4\rx\n", {":2:3:", "'4\\x0dx'"});
  expect_csv_refused(std::string("1,2\n3,4\0\n", 9), {"\\x00"});
  expect_csv_refused("1,2\n3,1e999\n", {":2:3:", "'1e999'", "range of a double"});
  expect_csv_refused("1,2\n3,nan\n", {":2:3:", "'nan'", "not finite"});
  expect_csv_refused("nan,x\n", {":1:1:", "not finite"});
  expect_csv_refused("1,2\n3,4\n5, -inf\n", {":3:4:", "'-inf'", "not finite"});
  expect_csv_refused("1,2\n3," + std::string(1000, 'z') + "\n", {"zzz...'"});
}

TEST(Csv, EveryFlippedByteGivesATableOrAnError) {
  const std::string text = "x,y\n1.5,-2\n3e2,4\n";
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(value);
      try {
        const Table table = csv(flipped);
        EXPECT_EQ(table.values.size(), static_cast<std::size_t>(table.rows * table.cols));
      } catch (const DataError& error) {
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      }
    }
  }
}

class ReadTable : public FolderTest {};

TEST_F(ReadTable, ChoosesByTheEndingOfTheName) {
  put(at("a.csv"), "1,2\n");
  put(at("b.NPY"), npy_of(header_of("<f4", "(1, 2)"), raw<float>({1, 2})));
  EXPECT_EQ(read_table(at("a.csv")).values, (std::vector<double>{1, 2}));
  EXPECT_EQ(read_table(at("b.NPY")).values, (std::vector<double>{1, 2}));
  put(at("c.txt"), "1,2\n");
  expect_error<DataError>([&] { read_table(at("c.txt")); }, {"c.txt", "'.txt'", ".npy or .csv"});
  expect_error<DataError>([&] { read_table(at("absent.npy")); }, {"absent.npy", "No such file"});
  put(at("bad.csv"), "1,x\n");
  expect_error<DataError>([&] { read_table(at("bad.csv")); }, {at("bad.csv").string() + ":1:3:"});
}

}  // namespace
}  // namespace bracket
