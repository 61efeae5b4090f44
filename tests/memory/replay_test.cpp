// Every allocation of real training runs on an H100, in order (tools/measure/replayable.py): the simulated allocator must print what torch printed.
#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "memory/allocator.hpp"

namespace dryfit {
namespace {

struct Printed { std::string phase; std::int64_t allocated, reserved; };
struct Replayed { std::vector<Printed> torch, here; };

// given_addresses: segments lie where the driver put them; else where the simulation puts them.
Replayed replay(const std::string& name, bool given_addresses) {
  std::ifstream in(std::string(DRYFIT_SOURCE_DIR "/tests/golden/traces/") + name + ".txt");
  EXPECT_TRUE(in.is_open()) << name;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::deque<std::int64_t> addresses;
  AllocatorConfig config;
  for (const std::string& line : lines) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "conf") config = *parse_alloc_conf(line.substr(5));
    std::int64_t address = 0;
    if (kind == "segment" && words >> address) addresses.push_back(address);
  }
  CachingAllocator allocator(config, std::nullopt);
  allocator.set_device_total(Bytes(85017493504));
  if (given_addresses && !config.expandable_segments) {
    allocator.set_segment_addresses([&](Bytes) {
      const std::int64_t next = addresses.front();
      addresses.pop_front();
      return next;
    });
  }
  Replayed out;
  std::vector<BlockId> blocks{0};
  std::int64_t most_allocated = 0, most_reserved = 0;
  for (const std::string& line : lines) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "phase") {
      Printed p;
      words >> p.phase >> p.allocated >> p.reserved;
      out.torch.push_back(p);
      out.here.push_back({p.phase, most_allocated, most_reserved});
      most_allocated = allocator.stats().allocated.count, most_reserved = allocator.stats().reserved.count;
    }
    std::int64_t number = 0;
    if ((kind != "+" && kind != "-") || !(words >> number)) continue;
    if (kind == "-") {
      allocator.free(blocks[static_cast<std::size_t>(number)]);
      continue;
    }
    blocks.push_back(*allocator.malloc(Bytes(number)));
    most_allocated = std::max(most_allocated, allocator.stats().allocated.count);
    most_reserved = std::max(most_reserved, allocator.stats().reserved.count);
  }
  return out;
}

void expect_equal(const std::string& name, bool given_addresses) {
  const Replayed r = replay(name, given_addresses);
  ASSERT_GE(r.torch.size(), 4u) << name;
  for (std::size_t i = 0; i < r.torch.size(); ++i) {
    EXPECT_EQ(r.here[i].allocated, r.torch[i].allocated) << name << ' ' << r.torch[i].phase;
    EXPECT_EQ(r.here[i].reserved, r.torch[i].reserved) << name << ' ' << r.torch[i].phase;
  }
}

TEST(Replay, runsOfAnH100) {
  for (const char* name : {"llama_1b", "gpt2_8bit", "nanochat_d4", "llama_1b_compiled", "gpt2_accumulated", "nanochat_d12_unsplit", "nanochat_d12_rounded"}) expect_equal(name, true);
}

// Where the driver's addresses are not known, those from the top down give the same here.
TEST(Replay, addressesFromTheTopDown) {
  for (const char* name : {"llama_1b", "nanochat_d4"}) expect_equal(name, false);
}

}  // namespace
}  // namespace dryfit
