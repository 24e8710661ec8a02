// IDX, CIFAR, .npy of bytes, PNG and JPEG as untrusted input.
#include <array>
#include <cmath>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/cifar.h"
#include "host/files/idx.h"
#include "host/files/jpeg_file.h"
#include "host/files/npy.h"
#include "host/files/pixel_file.h"
#include "image_samples.h"

#ifdef BRACKET_WITH_JPEG
#include <jpeglib.h>

#include <cstdio>
#endif

namespace bracket {
namespace {

TEST(Idx, ImagesAndLabels) {
  const std::string values = text_of(random_pixels(3 * 5 * 7, 1));
  const std::string file = idx_file({3, 5, 7}, values);
  EXPECT_TRUE(is_idx(bytes_of(file), 3));
  EXPECT_FALSE(is_idx(bytes_of(file), 1));
  const IdxArray images = parse_idx(bytes_of(file), 3, "f");
  EXPECT_EQ(images.shape, (std::vector<std::int64_t>{3, 5, 7}));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(images.values.data()), images.values.size()), values);
  EXPECT_EQ(parse_idx(bytes_of(idx_file({4}, "abcd")), 1, "f").values.size(), 4u);
}

TEST(Idx, BadFiles) {
  const auto refused = [](const std::string& text, int rank, const std::vector<std::string>& parts) {
    std::vector<std::string> all = parts;
    all.push_back("'f': ");
    expect_error<DataError>([&] { parse_idx(bytes_of(text), rank, "f"); }, all);
  };
  const std::string good = idx_file({2, 3, 4}, std::string(24, 'x'));
  refused("", 3, {"two zero bytes"});
  refused("PNG...", 3, {"two zero bytes"});
  refused(good, 1, {"unsigned bytes with 3 dimensions", "with 1 are needed (labels)"});
  refused(idx_file({2, 3, 4}, std::string(96, 'x'), 0x0d), 3, {"float", "unsigned bytes with 3"});
  for (std::size_t length = 4; length < 16; ++length) refused(good.substr(0, length), 3, {"16 bytes", "truncated"});
  refused(good.substr(0, 39), 3, {"2 x 3 x 4", "23 follow", "truncated"});
  refused(good + "y", 3, {"25 follow", "foreign"});
  refused(idx_file({0, 3, 4}, ""), 3, {"0 x 3 x 4", "nothing"});
  refused(idx_file({0xffffffff, 0xffffffff, 0xffffffff}, "x"), 3, {"1 follow", "truncated"});
}

TEST(Cifar, BothKindsAreToldApart) {
  const std::vector<std::uint8_t> pixels = random_pixels(4 * 3072, 2);
  const std::string ten = cifar_file(pixels, {"\x09", std::string(1, '\0'), "\x03", "\x09"});
  ASSERT_EQ(cifar_kind(bytes_of(ten), "f"), CifarKind::cifar10);
  std::vector<std::uint8_t> found;
  std::vector<std::int32_t> labels;
  append_cifar(found, labels, bytes_of(ten), CifarKind::cifar10, "f");
  EXPECT_EQ(found, pixels);
  EXPECT_EQ(labels, (std::vector<std::int32_t>{9, 0, 3, 9}));

  const std::string hundred = cifar_file(pixels, {"\x13\x63", "\x01\x02", "\x01\x05", "\x02\x40"});
  ASSERT_EQ(cifar_kind(bytes_of(hundred), "f"), CifarKind::cifar100);
  append_cifar(found, labels, bytes_of(hundred), CifarKind::cifar100, "f");
  EXPECT_EQ(found.size(), 2 * pixels.size());
  EXPECT_TRUE(std::equal(pixels.begin(), pixels.end(), found.begin() + 4 * 3072));
  EXPECT_EQ(labels, (std::vector<std::int32_t>{9, 0, 3, 9, 99, 2, 5, 64}));
}

TEST(Cifar, BadFiles) {
  const std::vector<std::uint8_t> pixels = random_pixels(2 * 3072, 3);
  const std::string good = cifar_file(pixels, {"\x01", "\x02"});
  expect_error<DataError>([&] { cifar_kind(bytes_of(""), "f"); }, {"'f'", "empty"});
  for (const std::size_t length : {std::size_t{1}, std::size_t{3072}, std::size_t{3075}, good.size() - 1}) {
    expect_error<DataError>([&] { cifar_kind(bytes_of(good.substr(0, length)), "f"); },
                            {"'f'", std::to_string(length) + " bytes", "3073", "3074", "truncated"});
  }
  const std::string wrong = cifar_file(pixels, {"\x01", "\x0a"});
  std::vector<std::uint8_t> found;
  std::vector<std::int32_t> labels;
  expect_error<DataError>([&] { append_cifar(found, labels, bytes_of(wrong), cifar_kind(bytes_of(wrong), "f"), "f"); },
                          {"'f'", "record 1", "10 of 0..9", "CIFAR-10"});
  const std::string fine = cifar_file(pixels, {"\x01\x64", "\x02\x02"});
  expect_error<DataError>([&] { append_cifar(found, labels, bytes_of(fine), cifar_kind(bytes_of(fine), "f"), "f"); },
                          {"record 0", "1 of 0..19, 100 of 0..99", "CIFAR-100"});
  EXPECT_TRUE(found.empty());
  // A batch of another kind than the first.
  expect_error<DataError>([&] { append_cifar(found, labels, bytes_of(good), CifarKind::cifar100, "f"); },
                          {"'f'", "CIFAR-100 records of 3074"});
}

TEST(NpyBytesTest, RoundTripAndRefusals) {
  const std::vector<std::uint8_t> pixels = random_pixels(2 * 3 * 4 * 3, 4);
  const std::array<std::int64_t, 4> shape = {2, 3, 4, 3};
  const std::vector<std::byte> file = serialize_npy(pixels, shape);
  EXPECT_TRUE(is_npy_of_bytes(file, "f"));
  EXPECT_FALSE(is_npy_of_bytes(serialize_npy(std::vector<float>(3), std::array<std::int64_t, 1>{3}), "f"));
  const NpyBytes array = parse_npy_bytes(file, "f");
  EXPECT_EQ(array.shape, std::vector<std::int64_t>(shape.begin(), shape.end()));
  EXPECT_TRUE(std::equal(pixels.begin(), pixels.end(), array.values.begin(), array.values.end(),
                         [](std::uint8_t a, std::byte b) { return a == std::to_integer<std::uint8_t>(b); }));
  expect_error<InvalidArgument>(
      [&] {
        serialize_npy(pixels, std::array<std::int64_t, 2>{2, 3});
      },
      {"72 values", "rank 1 to 4"});
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    expect_error<DataError>([&] { parse_npy_bytes(bytes_of(text), "f"); }, parts);
  };
  refused(npy_file("<f4", "(1, 1, 1)", "abcd"), {"'f'", "'<f4'", "uint8"});
  refused(npy_file("|u1", "(2, 2, 2)", "abcdefgh", "True"), {"Fortran", "ascontiguousarray"});
  refused(npy_file("|u1", "(2, 2, 3)", "abcdefgh"), {"needs 12 bytes", "the file has 8", "truncated"});
  refused(npy_file("|u1", "(2, 2, 1)", "abcdefgh"), {"foreign"});
  refused(npy_file("|u1", "(2, 0, 1)", ""), {"(2, 0, 1) is empty"});
  refused(npy_file("|u1", "(4294967296, 4294967296, 3)", "a"), {"more than 2^63"});
}

TEST(NpyBytesTest, Integers) {
  const auto integers = [](const std::string& dtype, std::string_view values, const std::string& shape) {
    return parse_npy_integers(bytes_of(npy_file(dtype, shape, values)), "f");
  };
  using Values = std::vector<std::int64_t>;
  EXPECT_EQ(integers("|u1", "\x01\xff", "(2,)"), (Values{1, 255}));
  EXPECT_EQ(integers("|i1", "\x01\xff", "(2,)"), (Values{1, -1}));
  EXPECT_EQ(integers("<i2", "\x01\x02\xfe\xff", "(2,)"), (Values{0x201, -2}));
  EXPECT_EQ(integers(">u4", std::string("\x80\0\0\x01", 4), "(1,)"), (Values{0x80000001}));
  EXPECT_EQ(integers("<i8", std::string("\xfd\xff\xff\xff\xff\xff\xff\xff", 8), "(1,)"), (Values{-3}));
  const auto refused = [&](const std::string& dtype, std::string_view values, const std::string& shape,
                           const std::vector<std::string>& parts) {
    expect_error<DataError>([&] { integers(dtype, values, shape); }, parts);
  };
  refused("<u8", std::string(8, '\xff'), "(1,)", {"label 0", "18446744073709551615"});
  refused("<f4", "abcd", "(1,)", {"'<f4'", "integers"});
  refused("|u1", "abcd", "(2, 2)", {"(2, 2)", "(N,)"});
  refused("|u1", "abc", "(4,)", {"truncated"});
}

PixelArray picture_of(std::string_view text, const std::optional<ImageShape>& wanted = {}) {
  return parse_picture(bytes_of(text), "p", wanted);
}

TEST(PixelFile, PngRoundTrip) {
  for (const ImageShape& shape :
       {ImageShape{1, 1, 1}, ImageShape{3, 1, 1}, ImageShape{1, 17, 33}, ImageShape{3, 33, 17}}) {
    const std::vector<std::uint8_t> pixels = random_pixels(shape.size(), 5);
    const PixelArray back = picture_of(text_of(serialize_png(pixels, shape)));
    EXPECT_EQ(back.shape, shape);
    EXPECT_EQ(back.values, pixels);
  }
  expect_error<InvalidArgument>([] { serialize_png(std::vector<std::uint8_t>(4), {2, 1, 2}); }, {"2 channels"});
  expect_error<InvalidArgument>([] { serialize_png(std::vector<std::uint8_t>(4), {1, 1, 3}); }, {"4 values"});
  expect_error<InvalidArgument>([] { serialize_png({}, {1, 0, 3}); }, {"at least one pixel"});
}

TEST(PixelFile, Endings) {
  for (const char* name : {"a.png", "A.PNG", "a.jpg", "a.JPEG"}) EXPECT_TRUE(has_picture_ending(name)) << name;
  for (const char* name : {"a", "png", "a.gif", "a.png.txt", ".png"}) EXPECT_FALSE(has_picture_ending(name)) << name;
}

TEST(PixelFile, BadPngs) {
  const std::string good = text_of(serialize_png(random_pixels(5 * 4, 6), {1, 5, 4}));
  const auto refused = [](std::string_view text, const std::optional<ImageShape>& wanted,
                          const std::vector<std::string>& parts) {
    std::vector<std::string> all = parts;
    all.push_back("'p': ");
    expect_error<DataError>([&] { picture_of(text, wanted); }, all);
  };
  refused("", {}, {"no readable PNG"});
  refused("GIF89a", {}, {"no readable PNG"});
  for (std::size_t length = 0; length + 12 < good.size(); ++length)
    EXPECT_THROW(picture_of(good.substr(0, length)), DataError) << length;
  refused(good, ImageShape{1, 4, 5}, {"4 x 5 pixels, gray", "the others 5 x 4 pixels, gray"});
  refused(good, ImageShape{3, 5, 4}, {"gray", "colour"});
}

#ifdef BRACKET_WITH_JPEG
std::string jpeg_of(const std::vector<std::uint8_t>& pixels, const ImageShape& shape) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &memory, &size);
  info.image_width = static_cast<JDIMENSION>(shape.width);
  info.image_height = static_cast<JDIMENSION>(shape.height);
  info.input_components = static_cast<int>(shape.channels);
  info.in_color_space = shape.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 100, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    auto* row = const_cast<JSAMPROW>(pixels.data() + info.next_scanline * static_cast<std::size_t>(shape.width) *
                                                         static_cast<std::size_t>(shape.channels));
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string text(reinterpret_cast<char*>(memory), size);
  std::free(memory);
  return text;
}

TEST(PixelFile, Jpeg) {
  for (const std::int64_t channels : {1, 3}) {
    const ImageShape shape{channels, 13, 19};
    std::vector<std::uint8_t> pixels;
    for (std::int64_t i = 0; i < shape.size(); ++i) pixels.push_back(static_cast<std::uint8_t>(60 + i / channels / 4));
    const std::string file = jpeg_of(pixels, shape);
    const PixelArray back = picture_of(file);
    EXPECT_EQ(back.shape, shape);
    // Quality 100 quantises coefficients by 1, an error below 1/2 each; a smooth gray ramp survives within 2.
    for (std::size_t i = 0; i < pixels.size(); ++i) EXPECT_NEAR(back.values[i], pixels[i], 2) << i;
    for (std::size_t length = 3; length + 2 < file.size(); length += 5)
      EXPECT_THROW(picture_of(file.substr(0, length)), DataError) << length << " of " << file.size();
    expect_error<DataError>([&] { picture_of(file, ImageShape{channels, 13, 20}); }, {"19 x 13", "20 x 13"});
  }
}

TEST(PixelFile, AJpegThatClaimsAHugePictureIsRefusedBeforeDecoding) {
  std::string file = jpeg_of(random_pixels(64, 7), {1, 8, 8});
  const std::size_t frame = file.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  file.replace(frame + 5, 4, "\xea\x60\xea\x60");  // height and width
  try {
    picture_of(file);
    FAIL() << "accepted";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("60000 x 60000"), std::string::npos) << error.what();
  }
}
#else
TEST(PixelFile, WithoutLibjpegItIsNamed) {
  expect_error<DataError>([] { picture_of("\xff\xd8\xff\xe0...."); }, {"JPEG", "libjpeg62-turbo-dev"});
}
#endif

}  // namespace
}  // namespace bracket
