// Any bytes as nvidia-smi output: readings that make a machine, or an error with a hint.
#include <cstdlib>
#include <string_view>

#include "machine/probe.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto probe = dryfit::parse_nvidia_smi(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!probe) return probe.error().hint.empty() ? (std::abort(), 0) : 0;
  const auto machine = dryfit::machine_from_probe(*probe, {});
  if (!machine && machine.error().hint.empty()) std::abort();
  return 0;
}
