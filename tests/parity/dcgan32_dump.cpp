// Prints the figures of every case of dcgan32_figures.h as JSON; driven by dcgan32_step.py.
#include <exception>
#include <iostream>

#include "tests/parity/dcgan32_figures.h"

int main() {
  try {
    nlohmann::json figures;
    for (const std::string& name : bracket::test::dcgan32_cases()) figures[name] = bracket::test::dcgan32_figures(name);
    std::cout << figures.dump() << '\n';
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
