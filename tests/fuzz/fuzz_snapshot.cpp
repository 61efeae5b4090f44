// Any bytes as a memory snapshot, pickle or JSON: the same however they are cut, bounded; an account whose screen, JSON and chart are well formed.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "doctor/pickle.hpp"
#include "doctor/probe_snapshot_json.hpp"
#include "report/snapshot.hpp"

namespace {

using namespace dryfit;

void require(bool condition) {
  if (!condition) std::abort();
}

Result<Snapshot> read(std::string_view bytes, std::size_t piece) {
  SnapshotStore store;
  const bool json = !bytes.empty() && (bytes[0] == '{' || bytes[0] == '[');
  if (json) {
    SnapshotJson reader(store);
    for (std::size_t at = 0; at < bytes.size(); at += piece) reader.feed(bytes.substr(at, piece));
    if (const auto done = reader.finish(); !done) return std::unexpected(done.error());
  } else {
    PickleReader reader(store);
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      if (const auto fed = reader.feed(bytes.substr(at, piece)); !fed) return std::unexpected(fed.error());
    }
    if (const auto done = reader.finish(); !done) return std::unexpected(done.error());
  }
  require(store.memory() < bytes.size() * 100 + (4 << 20));
  return store.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = 1 + data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto whole = read(bytes, bytes.size() + 1), cut = read(bytes, piece);
  require(whole.has_value() == cut.has_value());
  if (!whole) {
    require(!whole.error().message.empty() && !whole.error().hint.empty() && whole.error().code == cut.error().code);
    return 0;
  }
  const auto one = report_snapshot(*whole, {}), two = report_snapshot(*cut, {});
  require(one && two);
  const std::string json = snapshot_json(*one, "snapshot");
  require(json == snapshot_json(*two, "snapshot"));
  require(nlohmann::json::accept(json));
  const std::string screen = snapshot_text(*one, "snapshot", {});
  for (char c : screen) require(static_cast<unsigned char>(c) >= 32 || c == '\n');
  require(snapshot_svg(*one, "snapshot").ends_with("</svg>\n"));
  return 0;
}
