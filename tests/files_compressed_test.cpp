// gzip and ZIP as untrusted input.
#include <array>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/gzip.h"
#include "host/files/zip.h"
#include "image_samples.h"

namespace bracket {
namespace {

std::string unzipped(std::string_view text) { return text_of(gunzip(bytes_of(text), "a.gz")); }

void expect_gzip_refused(std::string_view text, const std::vector<std::string>& parts) {
  std::vector<std::string> all = parts;
  all.push_back("'a.gz': ");
  expect_error<DataError>([&] { unzipped(text); }, all);
}

TEST(Gzip, RoundTripAcrossGrowthOfTheOutput) {
  // The output grows in steps that start at 64 KiB.
  for (const std::int64_t size : {0, 1, 17, 65535, 65536, 65537, 131072, 1000003}) {
    const std::string text = text_of(random_pixels(size, 1));
    EXPECT_EQ(unzipped(gzipped(text)), text) << size;
  }
  EXPECT_EQ(unzipped(gzipped("one") + gzipped("") + gzipped("two")), "onetwo");  // members are concatenated
}

TEST(Gzip, DamageIsNamed) {
  const std::string good = gzipped(text_of(random_pixels(3000, 2)));
  expect_gzip_refused("", {"does not start"});
  expect_gzip_refused("PK\x03\x04", {"does not start"});
  for (std::size_t length = 2; length < good.size(); ++length)
    expect_gzip_refused(good.substr(0, length), {"truncated"});
  expect_gzip_refused(good + std::string(5, '\0'), {"5 foreign bytes", std::to_string(good.size())});
  expect_gzip_refused(good + good.substr(0, 30), {"truncated"});
  std::string wrong_sum = good;
  wrong_sum[good.size() - 8] ^= 1;
  expect_gzip_refused(wrong_sum, {"damaged", "incorrect data check"});
  int num_refused = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string damaged = good;
    damaged[i] ^= 16;
    try {
      EXPECT_EQ(unzipped(damaged), text_of(random_pixels(3000, 2))) << "a change of byte " << i << " went unnoticed";
    } catch (const DataError&) {
      ++num_refused;
    }
  }
  // The time stamp and the operating system (6 bytes of the header) may be anything, and a changed flag of extra data
  // shifts what follows.
  EXPECT_GE(num_refused, static_cast<int>(good.size()) - 7);
}

TEST(Gzip, ABombStopsAtItsLimit) {
  EXPECT_EQ(largest_gunzipped_size(0), std::int64_t{64} << 20);
  EXPECT_EQ(largest_gunzipped_size(1000), (std::int64_t{64} << 20) + 100'000);
  EXPECT_EQ(largest_gunzipped_size(std::int64_t{1} << 40), std::int64_t{16} << 30);
  EXPECT_EQ(largest_gunzipped_size(INT64_MAX), std::int64_t{16} << 30);
  // 80 MiB of zeros take 80 KiB.
  const std::string bomb = gzipped(std::string(std::size_t{80} << 20, '\0'));
  ASSERT_LT(bomb.size(), 100'000u);
  expect_gzip_refused(
      bomb,
      {"more than " + std::to_string(largest_gunzipped_size(static_cast<std::int64_t>(bomb.size()))), "unpack it"});
  // Many small ones add up.
  std::string many;
  const std::string member = gzipped(std::string(std::size_t{8} << 20, '\0'));
  for (int i = 0; i < 9; ++i) many += member;
  expect_gzip_refused(many, {"more than"});
}

class ZipTest : public FolderTest {};

std::string zip_of(const std::vector<std::pair<std::string, std::string>>& members) {
  std::vector<NamedBytes> named;
  for (const auto& [name, content] : members) named.push_back({name, bytes_of(content)});
  return text_of(serialize_zip(named));
}

std::vector<std::pair<std::string, std::string>> contents(std::string_view archive) {
  std::vector<std::pair<std::string, std::string>> result;
  for (const ZipMember& member : zip_members(bytes_of(archive), "a.npz"))
    result.emplace_back(member.name, text_of(unpack(member, "a.npz")));
  return result;
}

TEST(Zip, RoundTrip) {
  const std::vector<std::pair<std::string, std::string>> members = {
      {"images.npy", text_of(random_pixels(1000, 3))}, {"empty", ""}, {"a/b", "inner"}};
  EXPECT_EQ(contents(zip_of(members)), members);
  EXPECT_EQ(zip_of(members), zip_of(members));
  EXPECT_TRUE(contents(zip_of({})).empty());
  std::string with_comment = zip_of(members) + "a comment";
  with_comment[with_comment.size() - 9 - 2] = 9;
  EXPECT_EQ(contents(with_comment), members);
}

// A stored archive of one member turned into a deflated one.
std::string deflated_zip(const std::string& content, std::uint32_t claimed_size) {
  const std::string packed = deflated(content, -15);
  std::string archive = zip_of({{"m", packed}});
  const std::string whole = zip_of({{"m", content}});
  const std::size_t central = archive.size() - 22 - 47;
  archive[8] = archive[central + 10] = 8;
  const std::size_t whole_central = whole.size() - 22 - 47;
  for (std::size_t i = 0; i < 4; ++i) {
    archive[central + 16 + i] = whole[whole_central + 16 + i];  // CRC-32 of the content
    archive[central + 24 + i] = static_cast<char>(claimed_size >> (8 * i));
  }
  return archive;
}

TEST(Zip, DeflatedMembers) {
  for (const std::int64_t size : {0, 1, 70000}) {
    const std::string content = text_of(random_pixels(size, 4));
    EXPECT_EQ(contents(deflated_zip(content, static_cast<std::uint32_t>(size))).front().second, content) << size;
  }
}

TEST(Zip, DamageIsNamed) {
  const auto refused = [](std::string_view text, const std::vector<std::string>& parts) {
    std::vector<std::string> all = parts;
    all.push_back("'a.npz'");
    expect_error<DataError>([&] { contents(text); }, all);
  };
  const std::string content = text_of(random_pixels(500, 5));
  const std::string good = zip_of({{"images.npy", content}});
  refused("", {"end-of-archive"});
  refused("PK", {"end-of-archive"});
  for (std::size_t length = 0; length < good.size(); length += 7) refused(good.substr(0, length), {"end-of-archive"});
  std::string flipped = good;
  flipped[100] ^= 1;  // inside the content
  refused(flipped, {"CRC-32", "'images.npy'"});
  for (std::size_t i = 0; i < good.size(); ++i) {  // anything but a crash, and never other content
    std::string damaged = good;
    damaged[i] ^= 64;
    try {
      for (const auto& [name, found] : contents(damaged)) EXPECT_EQ(found, content) << i;
    } catch (const DataError&) {
    }
  }
  const std::string small = "content";
  refused(deflated_zip(small, 8), {"its header says 8"});
  refused(deflated_zip(small, 6), {"more than 6 bytes"});
  refused(deflated_zip(small, 0x7fffffff), {"claim to inflate to 2147483647", "numpy.savez"});
  std::string method = zip_of({{"m", small}});
  method[method.size() - 22 - 47 + 10] = 14;
  refused(method, {"method 14", "savez_compressed"});
  std::string encrypted = zip_of({{"m", small}});
  encrypted[encrypted.size() - 22 - 47 + 8] = 1;
  refused(encrypted, {"encrypted"});
}

TEST(Zip, NamesThatLeadElsewhereAreLeftOut) {
  EXPECT_EQ(contents(zip_of({{"../up.npy", "1"},
                             {"/root.npy", "2"},
                             {"a/../../b", "3"},
                             {"..", "4"},
                             {"c\\d", "5"},
                             {"folder/", ""},
                             {"", "6"},
                             {"..fine.npy", "7"}})),
            (std::vector<std::pair<std::string, std::string>>{{"..fine.npy", "7"}}));
}

// The archive of one stored member "m" with everything that can be in Zip64 records put there.
TEST(Zip, Zip64) {
  const std::string content = "sixty-four";
  const auto number = [](std::uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
    return text;
  };
  const std::string plain = zip_of({{"m", content}});
  const std::size_t directory_at = 31 + content.size();
  std::string archive = plain.substr(0, directory_at);
  std::string entry = plain.substr(directory_at, 47);
  entry.replace(20, 8, std::string(8, '\xff'));  // sizes
  entry.replace(42, 4, std::string(4, '\xff'));  // place
  entry.replace(30, 2, number(4 + 24 + 5, 2));   // extra bytes
  entry += number(0x7875, 2) + number(1, 2) + "x" + number(1, 2) + number(24, 2) + number(content.size(), 8) +
           number(content.size(), 8) + number(0, 8);
  archive += entry;
  const std::size_t end64 = archive.size();
  archive += "PK\x06\x06" + number(44, 8) + number(45, 2) + number(45, 2) + number(0, 4) + number(0, 4) + number(1, 8) +
             number(1, 8) + number(entry.size(), 8) + number(directory_at, 8);
  archive += "PK\x06\x07" + number(0, 4) + number(end64, 8) + number(1, 4);
  archive += "PK\x05\x06" + number(0, 4) + std::string(12, '\xff') + number(0, 2);
  EXPECT_EQ(contents(archive), (std::vector<std::pair<std::string, std::string>>{{"m", content}}));
  std::string far = archive;
  far.replace(end64 + 56 + 8, 8, number(std::uint64_t{1} << 62, 8));
  expect_error<DataError>([&] { contents(far); }, {"Zip64"});
  std::string short_field = archive;
  short_field.replace(directory_at + 47 + 5 + 2, 2, number(16, 2));
  expect_error<DataError>([&] { contents(short_field); }, {"Zip64 field is too short"});
}

TEST_F(ZipTest, ReadsPlainAndGzipByContent) {
  put(at("plain.gz"), "not compressed at all");
  EXPECT_EQ(text_of(read_plain_or_gzip(at("plain.gz"))), "not compressed at all");
  put(at("packed"), gzipped("packed"));
  EXPECT_EQ(text_of(read_plain_or_gzip(at("packed"))), "packed");
  expect_error<DataError>([&] { read_plain_or_gzip(at("absent")); }, {"absent"});
}

}  // namespace
}  // namespace bracket
