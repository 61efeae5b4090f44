// Any bytes as a capture, in pieces: refused with a place and a hint, or a program that runs through timeline and allocator.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "capture/capture.hpp"
#include "memory/timeline.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  dryfit::CaptureReader reader;
  const std::size_t piece = size > 0 ? 1 + data[0] % 64 : 1;
  for (std::size_t i = 0; i < size && reader.feed(text.substr(i, piece)); i += piece) {}
  auto capture = reader.finish();
  if (!capture) {
    if (capture.error().hint.empty() || capture.error().where.empty()) std::abort();
    return 0;
  }
  dryfit::fit_to(*capture, {});
  const dryfit::Timeline timeline = dryfit::run_timeline(capture->program);
  const dryfit::ReservedResult reserved = dryfit::simulate_reserved(capture->program, {}, std::nullopt);
  if (reserved.peak.allocated < timeline.peak || reserved.peak.reserved < reserved.peak.allocated) std::abort();
  return 0;
}
