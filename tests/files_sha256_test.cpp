#include <string>

#include "bracket/error.h"
#include "files_test_folder.h"
#include "host/files/sha256.h"

namespace bracket {
namespace {

// Examples of FIPS 180-4 published by NIST, and the digest of the empty message.
TEST(Sha256, PublishedDigests) {
  EXPECT_EQ(sha256_hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(bytes_of("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(
      sha256_hex(bytes_of("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrl"
                          "mnopqrsmnopqrstnopqrstu")),
      "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  EXPECT_EQ(sha256_hex(bytes_of(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// Every length around the block and padding borders, cut at every place: pieces must not matter.
TEST(Sha256, PiecesOfAnySize) {
  std::string text;
  for (int i = 0; i < 130; ++i) text += static_cast<char>('!' + i % 90);
  for (const std::size_t length : {1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 130}) {
    const auto message = bytes_of(text).first(length);
    const std::string whole = sha256_hex(message);
    for (std::size_t cut = 0; cut <= length; ++cut) {
      Sha256 sha;
      sha.update(message.first(cut));
      sha.update(message.subspan(cut));
      EXPECT_EQ(sha.hex_digest(), whole) << length << " cut at " << cut;
    }
    Sha256 by_byte;
    for (const std::byte& byte : message) by_byte.update({&byte, 1});
    EXPECT_EQ(by_byte.hex_digest(), whole) << length;
  }
}

TEST(Sha256, DigestDoesNotEndTheStream) {
  Sha256 sha;
  sha.update(bytes_of("a"));
  EXPECT_EQ(sha.hex_digest(), sha256_hex(bytes_of("a")));
  sha.update(bytes_of("bc"));
  EXPECT_EQ(sha.hex_digest(), sha256_hex(bytes_of("abc")));
}

}  // namespace
}  // namespace bracket
