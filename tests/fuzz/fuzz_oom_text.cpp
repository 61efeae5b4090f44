// Any bytes as a training log: the same facts however they are cut, bounded; a diagnosis whose screen and JSON are well formed.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "doctor/diagnosis.hpp"
#include "doctor/file_kind.hpp"
#include "report/doctor.hpp"

namespace {

dryfit::LogFacts read(std::string_view bytes, std::size_t piece) {
  dryfit::LogScanner scanner;
  for (std::size_t at = 0; at < bytes.size(); at += piece) scanner.feed(bytes.substr(at, piece));
  return scanner.finish();
}

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = 1 + data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  dryfit::file_kind(bytes);
  dryfit::LogFacts whole = read(bytes, bytes.size() + 1), cut = read(bytes, piece);
  require(whole.events.size() <= dryfit::LogScanner::kMostEvents && whole.runs.size() <= dryfit::LogScanner::kMostRuns && !whole.runs.empty());
  for (dryfit::RunLog& r : whole.runs) {  // the engine has fuzz targets of its own; here it would only take the time
    r.layers.reset();
    r.overridden.clear();
    r.command.clear();
  }
  for (dryfit::RunLog& r : cut.runs) {
    r.layers.reset();
    r.overridden.clear();
    r.command.clear();
  }
  const auto one = dryfit::diagnose(std::move(whole), {}), two = dryfit::diagnose(std::move(cut), {});
  require(one.has_value() == two.has_value());
  if (!one) {
    require(!one.error().hint.empty());
    return 0;
  }
  const std::string json = dryfit::doctor_json(*one, "log");
  require(json == dryfit::doctor_json(*two, "log"));
  require(nlohmann::json::accept(json));
  const std::string screen = dryfit::doctor_text(*one, "log", {});
  for (char c : screen) require(static_cast<unsigned char>(c) >= 32 || c == '\n');
  return 0;
}
