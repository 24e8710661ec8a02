// Reads files that Python wrote and writes files for Python to read; driven by the scripts beside it.
//
//   files_exchange safetensors IN OUT   reads IN and writes its content to OUT
//   files_exchange float32 IN OUT       reads the .npy or .csv file IN and writes it to OUT as .npy of that type
//   files_exchange float64 IN OUT
//   files_exchange events FOLDER PNG    writes two sessions of TensorBoard events, the second from step 3
#include <array>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string_view>
#include <vector>

#include "bracket/error.h"
#include "host/files/atomic_file.h"
#include "host/files/event_file.h"
#include "host/files/npy.h"
#include "host/files/safetensors.h"
#include "host/files/table.h"

namespace bracket {
namespace {

void exchange_safetensors(const char* in, const char* out) {
  write_file_atomically(out, serialize_safetensors(read_safetensors(in)));
}

template <class T>
void exchange_table(const char* in, const char* out) {
  const Table table = read_table(in);
  const std::array<std::int64_t, 2> shape = {table.rows, table.cols};
  const std::vector<T> values(table.values.begin(), table.values.end());
  write_file_atomically(out, serialize_npy(values, shape));
}

void write_events(const char* folder, const char* png) {
  EventFile first(folder, 0);
  for (int step = 0; step < 5; ++step) first.add_scalars(step, std::vector<NamedValue>{{"loss", 1.0 / (step + 1)}});
  EventFile second(folder, 3);
  for (int step = 3; step < 5; ++step) second.add_scalars(step, std::vector<NamedValue>{{"loss", -1.0 * step}});
  second.add_png(4, "density", read_file(png));
}

}  // namespace
}  // namespace bracket

int main(int argc, char** argv) {
  const std::string_view what = argc == 4 ? argv[1] : "";
  try {
    if (what == "safetensors") {
      bracket::exchange_safetensors(argv[2], argv[3]);
    } else if (what == "float32") {
      bracket::exchange_table<float>(argv[2], argv[3]);
    } else if (what == "float64") {
      bracket::exchange_table<double>(argv[2], argv[3]);
    } else if (what == "events") {
      bracket::write_events(argv[2], argv[3]);
    } else {
      throw bracket::InvalidArgument("usage: files_exchange safetensors|float32|float64 IN OUT, or events FOLDER PNG");
    }
  } catch (const bracket::Error& error) {
    std::cerr << error.what() << '\n';
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
