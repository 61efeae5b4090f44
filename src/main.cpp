// argv to cli::run to an exit status.
#include <string_view>
#include <vector>

#include "cli/terminal.hpp"

int main(int argc, char** argv) {
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  return dryfit::cli::run(words, dryfit::cli::real_env());
}
