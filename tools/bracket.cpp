// The program `bracket`: trains, judges and draws energy-based models.
#include "tools/program/command_line.h"

int main(int argc, char** argv) { return bracket::run_command_line(argc, argv); }
