#include "host/files/table.h"

#include <string>

#include "bracket/error.h"
#include "host/files/csv.h"
#include "host/files/in_quotes.h"
#include "host/files/npy.h"

namespace bracket {

Table read_table(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (ending == ".npy") return read_npy(path);
  if (ending == ".csv") return read_csv(path);
  throw DataError("data file " + path_in_quotes(path) + " ends in " + text_in_quotes(ending) +
                  "; give a file that ends in .npy or .csv");
}

}  // namespace bracket
