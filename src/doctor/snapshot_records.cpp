// Dictionaries of a snapshot to records: trace entries, frames, blocks, segments, with every field's type and range looked at. Part of
// snapshot_store.
#include <algorithm>
#include <cmath>

#include "doctor/snapshot_store.hpp"
#include "doctor/snapshot_words.hpp"

namespace dryfit {

using namespace snapshot_words;

std::optional<std::int64_t> SnapshotStore::integer(Value v) const {
  switch (kind(v)) {
    case Kind::none: return 0;
    case Kind::boolean: return static_cast<std::int64_t>(payload(v));
    case Kind::integer: return static_cast<std::int64_t>(payload(v)) - (std::int64_t{1} << 58);
    case Kind::wide: return wides_[payload(v)];
    case Kind::real: {
      const double x = reals_[payload(v)];
      return std::isfinite(x) && std::abs(x) < 9e15 ? std::optional(static_cast<std::int64_t>(x)) : std::nullopt;
    }
    default: return std::nullopt;
  }
}

bool SnapshotStore::number(Value v, std::string_view field, std::int64_t& out) {
  const auto n = integer(resolve(v));
  if (!n) return wrong("'" + std::string(field) + "' is not a number");
  out = *n;
  return true;
}

bool SnapshotStore::size(Value v, std::string_view field, Bytes& out) {
  std::int64_t n = 0;
  if (!number(v, field, n)) return false;
  if (n < 0 || n > kMostSize) return wrong("'" + std::string(field) + "' is " + std::to_string(n) + ", which no device can hold");
  out = Bytes(n);
  total_ += out;
  return total_.count <= kMostTotal || wrong("the sizes of this snapshot add up to more than 2^61 bytes");
}

bool SnapshotStore::address(Value v, std::string_view field, std::int64_t& out) {
  if (!number(v, field, out)) return false;
  return (out > -kMostAddress && out < kMostAddress) || wrong("'" + std::string(field) + "' is " + std::to_string(out) + ", which is no address");
}

bool SnapshotStore::frames(Value v, std::uint32_t& out) {
  v = resolve(v);
  out = kind(v) == Kind::stack ? static_cast<std::uint32_t>(payload(v)) : 0;
  if (kind(v) == Kind::stack || kind(v) == Kind::none || kind(v) == Kind::list) return true;  // a list of what are no frames: none
  return wrong("'frames' is not a list");
}

bool SnapshotStore::stream(Value v, std::uint16_t& out) {
  std::int64_t handle = 0;
  if (!number(v, "stream", handle)) return false;
  for (std::size_t i = out_.streams.size(); i-- > 0;) {
    if (out_.streams[i] == handle) return out = static_cast<std::uint16_t>(i), true;
  }
  if (out_.streams.size() >= 4096) return wrong("more than 4096 streams");
  out = static_cast<std::uint16_t>(out_.streams.size());
  out_.streams.push_back(handle);
  return true;
}

SnapshotStore::Kind SnapshotStore::record_kind(std::span<const Value> pairs) const {
  bool size = false, state = false, file = false, name = false;
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    if (kind(pairs[i]) != Kind::text) continue;
    switch (payload(pairs[i])) {
      case kAction: return Kind::entry;
      case kSegmentType:
      case kTotalSize: return Kind::segment;
      case kSize: size = true; break;
      case kState: state = true; break;
      case kFilename: file = true; break;
      case kName: name = true; break;
      default: break;
    }
  }
  return size && state ? Kind::block : file && name ? Kind::frame : Kind::dict;
}

bool SnapshotStore::set(Value& dict, std::span<const Value> pairs) {
  if (kind(dict) == Kind::dict && payload(dict) == kFresh) {
    switch (record_kind(pairs)) {
      case Kind::entry: out_.entries.push_back(TraceEntry()); dict = pack(Kind::entry, out_.entries.size() - 1); break;
      case Kind::block: out_.blocks.emplace_back(); dict = pack(Kind::block, out_.blocks.size() - 1); break;
      case Kind::segment: segments_.emplace_back(); dict = pack(Kind::segment, segments_.size() - 1); break;
      case Kind::frame: return set_frame(dict, pairs);
      default:
        if (pairs.empty()) return true;
        dicts_.emplace_back();
        ++sequences_;
        dict = pack(Kind::dict, dicts_.size() - 1);
    }
  }
  switch (kind(dict)) {
    case Kind::entry: return set_entry(out_.entries[payload(dict)], pairs);
    case Kind::block: return set_block(out_.blocks[payload(dict)], pairs);
    case Kind::segment: return set_segment(segments_[payload(dict)], pairs);
    case Kind::frame: return true;  // what comes after file and name is not needed
    case Kind::dict: break;
    default: return wrong("keys for what is no dictionary");
  }
  Items& items = dicts_[payload(dict)];
  items.insert(items.end(), pairs.begin(), pairs.end());
  generic_items_ += pairs.size();
  return true;
}

bool SnapshotStore::set_frame(Value& dict, std::span<const Value> pairs) {
  std::uint32_t parts[3] = {0, 0, 0};
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    if (kind(pairs[i]) != Kind::text) continue;
    const Value v = resolve(pairs[i + 1]);
    const std::uint32_t text = kind(v) == Kind::text ? static_cast<std::uint32_t>(payload(v)) : 0;
    if (payload(pairs[i]) == kFilename) parts[0] = text;
    if (payload(pairs[i]) == kName) parts[1] = text;
    std::int64_t line = 0;
    if (payload(pairs[i]) != kLine) continue;
    if (!number(v, "line", line)) return false;
    parts[2] = static_cast<std::uint32_t>(std::clamp<std::int64_t>(line, 0, 1 << 30));
  }
  dict = pack(Kind::frame, out_.frames.intern(parts));
  return true;
}

bool SnapshotStore::set_entry(TraceEntry& entry, std::span<const Value> pairs) {
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    if (kind(pairs[i]) != Kind::text) continue;
    const Value v = pairs[i + 1];
    Bytes bytes;
    std::uint16_t stream_number = 0;
    switch (payload(pairs[i])) {
      case kAction: {
        const std::uint64_t text = kind(v) == Kind::text ? payload(v) : 0;
        if (kind(v) != Kind::text) return wrong("'action' is not text");
        const std::uint64_t action = text - kFirstAction;
        entry.action = text >= kFirstAction && action < std::size(kActions) ? static_cast<Action>(action) : Action::other;
        break;
      }
      case kAddr:
        if (!address(v, "addr", entry.address)) return false;
        break;
      case kDeviceFree:
        if (!size(v, "device_free", bytes)) return false;
        entry.address = bytes.count;
        break;
      case kSize:
        if (!size(v, "size", bytes)) return false;
        entry.size = static_cast<std::uint64_t>(bytes.count) & ((std::uint64_t{1} << 48) - 1);
        break;
      case kStream:
        if (!stream(v, stream_number)) return false;
        entry.stream = stream_number;
        break;
      case kTimeUs:
        if (!number(v, "time_us", entry.time_us)) return false;
        break;
      case kFrames:
        if (!frames(v, entry.stack)) return false;
        break;
      case kUserMetadata:
        if (kind(v) == Kind::text && payload(v) < (1 << 24)) entry.metadata = static_cast<std::uint32_t>(payload(v)) & 0xFFFFFF;
        break;
      default: break;
    }
  }
  return true;
}

bool SnapshotStore::set_block(SnapshotBlock& block, std::span<const Value> pairs) {
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    if (kind(pairs[i]) != Kind::text) continue;
    const Value v = pairs[i + 1];
    switch (payload(pairs[i])) {
      case kAddress:
        if (!address(v, "address", block.address)) return false;
        break;
      case kSize:
        if (!size(v, "size", block.size)) return false;
        break;
      case kRequestedSize:
        if (!size(v, "requested_size", block.requested)) return false;
        break;
      case kState: {
        const std::uint64_t text = kind(v) == Kind::text ? payload(v) : 0;
        if (text != kActive && text != kPending && text != kAwaiting && text != kInactive) return wrong("a block's state is none that PyTorch writes");
        block.state = text == kActive ? BlockState::allocated : text == kInactive ? BlockState::inactive : BlockState::pending_free;
        break;
      }
      case kFrames:
        if (!frames(v, block.stack)) return false;
        break;
      case kHistory:
        if (!set_history(block, v)) return false;
        break;
      default: break;
    }
  }
  return true;
}

// torch 1.13 and 2.0: a list of {addr, real_size, frames}, the newest first.
bool SnapshotStore::set_history(SnapshotBlock& block, Value history) {
  bool first = true;
  return each(resolve(history), [&](Value item) {
    if (!first || kind(item) != Kind::dict) return true;
    first = false;
    const auto real_size = field(item, "real_size"), stack = field(item, "frames");
    return (!real_size || size(*real_size, "real_size", block.requested)) && (!stack || frames(*stack, block.stack));
  });
}

bool SnapshotStore::set_segment(SnapshotSegment& segment, std::span<const Value> pairs) {
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    if (kind(pairs[i]) != Kind::text) continue;
    const Value v = resolve(pairs[i + 1]);
    std::int64_t n = 0;
    switch (payload(pairs[i])) {
      case kAddress:
        if (!address(v, "address", segment.address)) return false;
        break;
      case kStream:
        if (!number(v, "stream", segment.stream)) return false;
        break;
      case kDevice:
        if (!number(v, "device", segment.device)) return false;
        break;
      case kTotalSize:
        if (!size(v, "total_size", segment.size)) return false;
        break;
      case kAllocatedSize:
        if (!size(v, "allocated_size", segment.allocated)) return false;
        break;
      case kActiveSize:
        if (!size(v, "active_size", segment.active)) return false;
        break;
      case kRequestedSize:
        if (!size(v, "requested_size", segment.requested)) return false;
        break;
      case kSegmentType:
        if (kind(v) != Kind::text || (payload(v) != kSmall && payload(v) != kLarge)) return wrong("a segment is neither small nor large");
        segment.small = payload(v) == kSmall;
        break;
      case kIsExpandable:
        if (!number(v, "is_expandable", n)) return false;
        segment.expandable = n != 0;
        break;
      case kSegmentPoolId:
        segment.private_pool = false;
        if (!each(v, [&](Value item) {
              if (!number(item, "segment_pool_id", n)) return false;
              segment.private_pool = segment.private_pool || n != 0;
              return true;
            })) return false;
        break;
      case kFrames:
        if (!frames(v, segment.stack)) return false;
        break;
      case kBlocks:
        segment.blocks = static_cast<std::size_t>(v.bits);  // the list itself; its blocks are put in order at the end
        if (kind(v) != Kind::run && kind(v) != Kind::list) return wrong("'blocks' is not a list");
        break;
      default: break;
    }
  }
  return true;
}

}  // namespace dryfit
