// Writes the snapshots that the tests keep (tests/doctor/snapshots), or one of any size for measuring.
// Usage: make_snapshots FOLDER | make_snapshots --size BYTES FILE
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "made_snapshots.hpp"

using namespace dryfit;
using namespace dryfit::test;

namespace {

bool write(const std::string& path, std::string_view text) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  const bool good = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return file != nullptr && std::fclose(file) == 0 && good;
}

// A step of many layers with stacks as deep as real ones (about 50 frames, C++ among them), again and again.
int write_large(std::int64_t bytes, const char* path) {
  SnapshotMaker m;
  const std::string torch = "/venv/lib/python3.12/site-packages/torch/";
  std::vector<int> stacks;
  for (int layer = 0; layer < 24; ++layer) {
    for (int op = 0; op < 12; ++op) {
      std::vector<MadeFrame> frames{{"??", 0, "torch::unwind::unwind()"}, {"CUDACachingAllocator.cpp", 0, "c10::cuda::CUDACachingAllocator::Native::DeviceCachingAllocator::malloc"}};
      for (int i = 0; i < 24; ++i) frames.push_back({"??", 0, "at::_ops::op" + std::to_string(op) + "::redispatch" + std::to_string(i)});
      for (int i = 0; i < 12; ++i) frames.push_back({torch + "nn/modules/module.py", 1700 + i, "_call_impl"}), frames.push_back({"/home/u/run/model.py", 100 * layer + op, "forward"});
      stacks.push_back(m.stack(called(std::move(frames))));
    }
  }
  for (int i = 0; i < 24; ++i) m.alloc(16 << 20, stacks[static_cast<std::size_t>(i)]);
  m.forget();
  std::vector<BlockId> blocks;
  for (std::size_t i = 0; i < stacks.size(); ++i) blocks.push_back(m.alloc(static_cast<std::int64_t>(i % 7 + 1) << 20, stacks[i]));
  while (!blocks.empty()) m.free(blocks.back()), blocks.pop_back();
  std::vector<MadeEntry> steady;  // without the segments, which the first step made
  for (const MadeEntry& e : m.made.entries) {
    if (!e.action.starts_with("segment")) steady.push_back(e);
  }
  m.made.entries = steady;
  const std::size_t once = pickled(m.finish()).size();
  m.made.entries.clear();
  const std::size_t nothing = pickled(m.made).size();
  m.made.entries = steady;
  std::FILE* file = std::fopen(path, "wb");
  if (file == nullptr) return 1;
  write_snapshot(PickleWriter([&](std::string_view piece) { std::fwrite(piece.data(), 1, piece.size(), file); }, 4), m.made, std::max<std::int64_t>(1, bytes / static_cast<std::int64_t>(once - nothing)));
  return std::fclose(file) == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--size") == 0) return write_large(std::atoll(argv[2]), argv[3]);
  if (argc != 2) return 2;
  const std::string folder = std::string(argv[1]) + "/";
  AllocatorConfig expandable;
  expandable.expandable_segments = true;
  SnapshotMaker late = training(2, 3, 0, expandable);
  late.made.conf = "expandable_segments:True";
  late.forget();
  const int site = late.stack(called({{"/home/u/run/sample.py", 9, "sample"}}));
  late.free(late.alloc(200 << 20, site));
  late.empty_cache();
  late.alloc(30 << 20, site);
  const bool good = write(folder + "leak.pickle", pickled(training(6, 3, 2 << 20).finish())) && write(folder + "train.json", as_json(training(3, 2, 0).finish())) &&
                    write(folder + "fragmented.pickle", pickled(fragmented().finish(), 2)) && write(folder + "late_expandable.pickle", pickled(late.finish()));
  return good ? 0 : 1;
}
