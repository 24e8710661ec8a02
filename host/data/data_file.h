// What tells the path of a data file or folder from the name of a data set.
#pragma once

#include <string>

namespace bracket {

/// Whether Dataset::open takes `name_or_path` for a path: it has a slash, or ends in .npy, .npz, .csv, .bin or .gz in
/// any case.
bool is_data_file(const std::string& name_or_path);

/// Whether `text` ends in `ending`, which is lower-case, in any case.
bool has_ending(const std::string& text, const std::string& ending);

}  // namespace bracket
