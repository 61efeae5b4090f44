// The error of each row as a golden of the tests has it: "id<TAB>error" lines, others skipped.
#pragma once

#include <fstream>
#include <map>
#include <sstream>
#include <string>

namespace dryfit {

inline std::map<std::string, double> known_errors(const char* path) {
  std::ifstream in(path);
  std::map<std::string, double> known;
  std::string line, id;
  double error = 0;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    if (fields >> id >> error) known[id] = error;
  }
  return known;
}

}  // namespace dryfit
