#include "host/files/npy_header.h"

#include <charconv>
#include <utility>

#include "bracket/error.h"
#include "host/files/in_quotes.h"

namespace bracket {
namespace {

// NumPy's own limit on dimensions.
constexpr std::size_t kMaxRank = 64;

class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& file_name) : text_(text), file_name_(file_name) {}

  NpyHeader read() {
    NpyHeader header;
    bool seen_dtype = false;
    bool seen_order = false;
    bool seen_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      bool& seen = key == "descr" ? seen_dtype : key == "fortran_order" ? seen_order : seen_shape;
      if (key != "descr" && key != "fortran_order" && key != "shape")
        fail("it has the unknown key " + text_in_quotes(key));
      if (std::exchange(seen, true)) fail("it has the key " + text_in_quotes(key) + " twice");
      if (key == "descr") header.dtype = dtype();
      if (key == "fortran_order") header.fortran_order = boolean();
      if (key == "shape") header.shape = shape();
      if (header.dtype == "structured") return header;
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (position_ != text_.size()) fail("there is text after the closing brace");
    if (!seen_dtype || !seen_order || !seen_shape) fail("it must have the keys 'descr', 'fortran_order' and 'shape'");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError(path_in_quotes(file_name_) + ": the .npy header is malformed at its byte " +
                    std::to_string(position_) + ": " + reason + "; write the file again with numpy.save");
  }

  void skip_space() {
    while (position_ < text_.size() && std::string_view(" \t\r\n").find(text_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }

  bool accept(char c) {
    skip_space();
    if (position_ == text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail(std::string("expected '") + c + "'");
  }

  bool accept_word(std::string_view word) {
    skip_space();
    if (!text_.substr(position_).starts_with(word)) return false;
    position_ += word.size();
    return true;
  }

  std::string string() {
    skip_space();
    const char quote = position_ < text_.size() ? text_[position_] : '\0';
    if (quote != '\'' && quote != '"') fail("expected a string");
    const std::size_t begin = position_ + 1;
    const std::size_t end = text_.find(quote, begin);
    if (end == std::string_view::npos) fail("a string has no end");
    position_ = end + 1;
    return std::string(text_.substr(begin, end - begin));
  }

  std::string dtype() { return accept('[') ? "structured" : string(); }

  bool boolean() {
    if (accept_word("True")) return true;
    if (accept_word("False")) return false;
    fail("expected True or False");
  }

  std::vector<std::int64_t> shape() {
    std::vector<std::int64_t> extents;
    expect('(');
    while (!accept(')')) {
      if (extents.size() == kMaxRank) fail("the shape has more than " + std::to_string(kMaxRank) + " dimensions");
      skip_space();
      std::int64_t extent = 0;
      const char* const begin = text_.data() + position_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), extent);
      if (error != std::errc() || extent < 0) fail("the shape needs sizes from 0 to 2^63 - 1");
      position_ += static_cast<std::size_t>(end - begin);
      // Python 2 wrote long integers as 3L.
      accept('L');
      extents.push_back(extent);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return extents;
  }

  std::string_view text_;
  const std::string& file_name_;
  std::size_t position_ = 0;
};

}  // namespace

NpyHeader parse_npy_header(std::string_view text, const std::string& file_name) {
  return HeaderReader(text, file_name).read();
}

}  // namespace bracket
