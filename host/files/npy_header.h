// The header of a .npy file as untrusted input: a Python dictionary literal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bracket {

struct NpyHeader {
  std::string dtype;  ///< NumPy's descr, e.g. "<f4"; "structured" for a list of fields
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

/// Reads {'descr': ..., 'fortran_order': ..., 'shape': ...} with the keys in any order, each once, no other.
/// Throws DataError with `file_name` and the reason.
NpyHeader parse_npy_header(std::string_view text, const std::string& file_name);

}  // namespace bracket
