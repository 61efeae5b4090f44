// The pickle reader: what Python writes in every protocol, every opcode, everything that must be refused, every place to be cut at.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "doctor/pickle.hpp"
#include "doctor/probe_snapshot_json.hpp"
#include "made_snapshots.hpp"
#include "python_pickles.hpp"

namespace dryfit {
namespace {

using namespace std::string_literals;

Result<Snapshot> read(std::string_view bytes, std::size_t piece = SIZE_MAX) {
  SnapshotStore store;
  PickleReader reader(store);
  for (std::size_t at = 0; at < bytes.size(); at += std::min(piece, bytes.size() - at)) {
    if (const auto fed = reader.feed(bytes.substr(at, piece)); !fed) return std::unexpected(fed.error());
  }
  if (const auto done = reader.finish(); !done) return std::unexpected(done.error());
  return store.finish();
}

Result<Snapshot> read_json(std::string_view text) {
  SnapshotStore store;
  SnapshotJson reader(store);
  for (std::size_t at = 0; at < text.size(); at += 7) reader.feed(text.substr(at, 7));
  if (const auto done = reader.finish(); !done) return std::unexpected(done.error());
  return store.finish();
}

std::string code_of(const Result<Snapshot>& r) { return r ? "" : r.error().code; }

// Everything that is kept, as text: equal snapshots give equal texts.
std::string told(const Snapshot& s) {
  std::string out;
  const auto stack = [&](std::uint32_t number) {
    for (const std::uint32_t f : s.stack(number)) out += " " + std::string(s.frame(f).file) + ":" + std::to_string(s.frame(f).line) + ":" + std::string(s.frame(f).function);
    out += "\n";
  };
  for (const SnapshotSegment& g : s.segments) {
    out += "segment " + std::to_string(g.device) + " " + std::to_string(g.address) + " " + std::to_string(g.size.count) + " " + std::to_string(g.stream) + (g.small ? " small" : " large") + (g.expandable ? " expandable\n" : "\n");
    for (std::size_t i = 0; i < g.blocks; ++i) {
      const SnapshotBlock& b = s.blocks[g.first_block + i];
      out += "  block " + std::to_string(b.address) + " " + std::to_string(b.size.count) + " " + std::to_string(b.requested.count) + " " + std::to_string(static_cast<int>(b.state));
      stack(b.stack);
    }
  }
  for (const Snapshot::Trace& t : s.traces) {
    out += "trace " + std::to_string(t.device) + "\n";
    for (std::size_t i = 0; i < t.count; ++i) {
      const TraceEntry& e = s.entries[t.first + i];
      out += std::string(name_of(e.action)) + " " + std::to_string(e.address) + " " + std::to_string(e.bytes().count) + " " + std::to_string(s.streams[e.stream]) + " " + std::to_string(e.time_us) + " " + std::string(s.text(e.metadata));
      stack(e.stack);
    }
  }
  for (const Annotation& a : s.annotations) out += "mark " + std::string(s.text(a.name)) + " " + std::to_string(a.time_us) + (a.start ? " start\n" : " end\n");
  return out + s.conf;
}

TEST(Pickle, readsWhatPythonWrites) {
  const auto first = read(test::kProtocol4);
  ASSERT_TRUE(first) << first.error().message;
  ASSERT_EQ(first->segments.size(), 1u);
  EXPECT_EQ(first->segments[0].size, mib(20));
  ASSERT_EQ(first->segments[0].blocks, 2u);
  EXPECT_EQ(first->blocks[0].size, mib(5));
  EXPECT_EQ(first->blocks[0].state, BlockState::allocated);
  ASSERT_EQ(first->stack(first->blocks[0].stack).size(), 2u);
  EXPECT_EQ(first->frame(first->stack(first->blocks[0].stack)[0]).line, 54);
  ASSERT_EQ(first->traces.size(), 1u);
  ASSERT_EQ(first->traces[0].count, 5u);
  EXPECT_EQ(first->entries[1].action, Action::alloc);
  EXPECT_EQ(first->text(first->entries[1].metadata), "epoch 1");
  EXPECT_EQ(first->entries[4].time_us, 1700000000000004);
  ASSERT_TRUE(first->settings);
  EXPECT_FALSE(first->settings->expandable_segments);
  for (const std::string_view other : {test::kProtocol2, test::kProtocol3, test::kProtocol5, test::kPurePython, test::kOptimized}) {
    const auto again = read(other);
    ASSERT_TRUE(again) << again.error().message << again.error().where;
    EXPECT_EQ(told(*again), told(*first));
  }
}

TEST(Pickle, theSameHoweverItIsCut) {
  const auto whole = read(test::kProtocol4);
  ASSERT_TRUE(whole);
  for (const std::size_t piece : {1, 2, 3, 7, 64, 1000}) {
    const auto cut = read(test::kProtocol4, piece);
    ASSERT_TRUE(cut) << piece;
    EXPECT_EQ(told(*cut), told(*whole));
  }
}

TEST(Pickle, saysWhereItWasTruncated) {
  for (std::size_t n = 0; n < test::kProtocol4.size(); ++n) {
    const auto r = read(test::kProtocol4.substr(0, n));
    ASSERT_FALSE(r) << n;
    EXPECT_EQ(r.error().code, "truncated");
    EXPECT_EQ(r.error().where, "byte " + std::to_string(n));
    EXPECT_FALSE(r.error().hint.empty());
  }
}

TEST(Pickle, refusesWhatWouldBuildOrCallByName) {
  for (const std::string_view evil : {test::kEvil2, test::kEvil4}) {
    const auto r = read(evil);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, "unsafe_pickle");
    EXPECT_NE(r.error().message.find("'posix.system'; dryfit executes nothing"), std::string::npos) << r.error().message;
  }
  const auto ordered = read(test::kOrderedDict);
  ASSERT_FALSE(ordered);
  EXPECT_NE(ordered.error().message.find("collections.OrderedDict"), std::string::npos);
  for (const char op : {'R', 'b', '\x81', '\x92', 'o', '\x82', '\x83', '\x84', 'P', 'Q', '\x97', '\x98', '\x93'}) EXPECT_EQ(code_of(read("\x80\x04N"s + op)), "unsafe_pickle") << static_cast<int>(static_cast<unsigned char>(op));
  EXPECT_EQ(code_of(read("\x80\x02""ios\nsystem\n."s)), "unsafe_pickle");
  EXPECT_EQ(code_of(read("\x80\x02""c"s + std::string(600, 'x'))), "unsafe_pickle");
}

TEST(Pickle, refusesTheTextProtocolsAndDamage) {
  EXPECT_EQ(code_of(read(test::kProtocol0)), "old_pickle");
  EXPECT_EQ(code_of(read("\x80\x02I5\n."s)), "old_pickle");
  EXPECT_EQ(code_of(read("\x80\x06."s)), "bad_pickle");
  EXPECT_EQ(code_of(read("\x80\x04\xff."s)), "bad_pickle");
  EXPECT_EQ(code_of(read("\x80\x04h\x05."s)), "bad_pickle");                        // a memo that was never kept
  EXPECT_EQ(code_of(read("\x80\x04q\x05."s)), "bad_pickle");                        // nothing to keep
  EXPECT_EQ(code_of(read("\x80\x04Nr\xff\xff\xff\xff."s)), "bad_pickle");           // memory for four thousand million values
  EXPECT_EQ(code_of(read("\x80\x04X\xff\xff\xff\xff"s)), "bad_pickle");             // a text of 4 GiB
  EXPECT_EQ(code_of(read("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"s)), "bad_pickle");
  EXPECT_EQ(code_of(read("\x80\x04\x8b\xff\xff\xff\x7f"s)), "bad_pickle");
  for (const std::string_view broken : {"e", "u", "t", "0", "1", "2", "a", "s", "\x85", "]Na", "}NNs", "N(Ne", "N(NNu", "}(Nu", "](Ns"}) {
    const std::string bytes = "\x80\x04"s + std::string(broken) + ".";
    EXPECT_FALSE(read(bytes)) << broken;
  }
  EXPECT_EQ(code_of(read("\x80\x04."s)), "not_a_snapshot");
  EXPECT_EQ(code_of(read("\x80\x04}."s)), "not_a_snapshot");
  EXPECT_EQ(code_of(read("\x80\x04K\x05."s)), "not_a_snapshot");
  EXPECT_EQ(code_of(read(test::kCyclic)), "bad_snapshot");
}

TEST(Pickle, memoryIsBoundedByTheBytesRead) {
  for (const std::string& unit : {"N"s, "("s, "]\x94"s, "}\x94"s, "](Ne\x94"s, "G12345678"s, "K\x05"s, "2"s}) {
    std::string bytes = "\x80\x04N"s;
    while (bytes.size() < (std::size_t{12} << 20)) bytes += unit;
    SnapshotStore store;
    PickleReader reader(store);
    const auto fed = reader.feed(bytes);
    if (fed) continue;
    EXPECT_EQ(fed.error().code, "too_large") << unit;
    EXPECT_LT(store.memory(), 2 * (bytes.size() * 13 / 10 + (std::size_t{65} << 20))) << unit;  // a stack doubles as it grows
  }
}

// Each opcode by itself, inside a snapshot that has a list of segments and one more value.
TEST(Pickle, everyOpcodeOfBuiltinTypes) {
  const std::string head = "\x80\x04}\x94(\x8c\x08segments]X\x04\x00\x00\x00kept"s;
  for (const std::string& value : {"N"s, "\x88"s, "\x89"s, "K\x05"s, "M\x05\x01"s, "J\x05\x01\x00\x80"s, "\x8a\x00"s, "\x8a\x02\xff\xff"s, "\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00"s, "\x8b\x01\x00\x00\x00\x05"s, "G\x40\x0c\x00\x00\x00\x00\x00\x00"s,
                                   "\x8c\x01x"s, "X\x01\x00\x00\x00x"s, "\x8d\x01\x00\x00\x00\x00\x00\x00\x00x"s, "U\x01x"s, "T\x01\x00\x00\x00x"s, "C\x01x"s, "B\x01\x00\x00\x00x"s, "\x8e\x01\x00\x00\x00\x00\x00\x00\x00x"s, "\x96\x01\x00\x00\x00\x00\x00\x00\x00x"s,
                                   "]"s, "}"s, ")"s, "\x8f"s, "N\x85"s, "NN\x86"s, "NNN\x87"s, "(NNt"s, "(NNl"s, "(NNd"s, "(N\x91"s, "]Na"s, "](NNe"s, "\x8f(N\x90"s, "}NNs"s, "}(NNu"s, "N2\x86"s, "NN0"s, "N(NN1"s, "Nq\x07h\x07\x86"s, "Nr\x07\x00\x00\x00j\x07\x00\x00\x00\x86"s, "N\x94h\x01\x86"s,
                                   "\x95\x01\x00\x00\x00\x00\x00\x00\x00N"s}) {
    const auto r = read(head + value + "u."s);
    EXPECT_TRUE(r) << r.error().message << " for opcode " << static_cast<int>(static_cast<unsigned char>(value[0]));
  }
}

TEST(Pickle, wrongTypesInEachField) {
  const std::string good = test::as_json(test::training(1, 1, 0).finish());
  ASSERT_TRUE(read_json(good));
  int refused = 0;
  for (const char* field : {"device", "address", "total_size", "allocated_size", "stream", "segment_type", "segment_pool_id", "is_expandable", "blocks", "size", "requested_size", "state", "frames", "action", "addr", "time_us", "line", "filename", "name", "segments", "device_traces"}) {
    for (const char* wrong : {"null", "\"text\"", "{}", "[[]]", "1e300", "-7", "99999999999999999999", "true"}) {
      std::string text = good;
      const std::string key = "\"" + std::string(field) + "\": ";
      const std::size_t at = text.find(key);
      ASSERT_NE(at, std::string::npos) << field;
      // the value goes to the end of its line of thought: up to the next comma at the same depth
      std::size_t end = at + key.size();
      for (int depth = 0; end < text.size(); ++end) {
        const char c = text[end];
        if (c == '[' || c == '{') ++depth;
        if ((c == ']' || c == '}') && depth-- == 0) break;
        if (c == ',' && depth == 0) break;
      }
      text.replace(at + key.size(), end - at - key.size(), wrong);
      const auto r = read_json(text);
      if (!r) {
        ++refused;
        EXPECT_FALSE(r.error().message.empty());
        EXPECT_FALSE(r.error().hint.empty());
      }
    }
  }
  EXPECT_GT(refused, 60);
}

TEST(SnapshotJson, errorsHaveAPlace) {
  for (const std::string_view text : {"", "{", "{\"segments\": [", "{\"segments\": [1,]}", "nonsense", "[[[[", "{\"segments\": \"\xff\"}"}) {
    const auto r = read_json(text);
    ASSERT_FALSE(r) << text;
    EXPECT_EQ(r.error().code, "bad_json") << text;
    EXPECT_NE(r.error().where.find("byte "), std::string::npos) << text;
  }
  EXPECT_EQ(code_of(read_json(std::string(100, '[') + std::string(100, ']'))), "bad_json");
  EXPECT_EQ(code_of(read_json("{}")), "not_a_snapshot");
  EXPECT_EQ(code_of(read_json("[1, 2]")), "not_a_snapshot");
}

TEST(SnapshotStore, readsOldFormats) {
  // torch.cuda.memory_snapshot() of 1.13: a list, blocks without addresses, frames in a history, newest first
  const auto r = read_json(R"([{"device": 1, "address": 1000000000, "total_size": 2097152, "stream": 7, "segment_type": "small", "blocks": [
    {"size": 1024, "state": "active_allocated", "history": [{"addr": 1000000000, "real_size": 1000, "frames": [{"name": "f", "filename": "a.py", "line": 3}]}, {"addr": 1, "real_size": 5, "frames": []}]},
    {"size": 512, "state": "active_awaiting_free", "history": []}, {"size": 2095616, "state": "inactive"}]}])");
  ASSERT_TRUE(r) << r.error().message;
  ASSERT_EQ(r->blocks.size(), 3u);
  EXPECT_EQ(r->blocks[0].requested, Bytes(1000));
  EXPECT_EQ(r->stack(r->blocks[0].stack).size(), 1u);
  EXPECT_EQ(r->blocks[1].address, 1000001024);
  EXPECT_EQ(r->blocks[1].state, BlockState::pending_free);
  EXPECT_EQ(r->segments[0].device, 1);
}

TEST(SnapshotStore, refusesWhatCannotBe) {
  const auto with = [](const std::string& segment) { return code_of(read_json("{\"segments\": [" + segment + "]}")); };
  const std::string one = R"({"device": 0, "address": 4096, "total_size": 2048, "stream": 0, "segment_type": "large", "blocks": [{"size": 2048, "address": 4096, "state": "inactive"}]})";
  EXPECT_EQ(with(one), "");
  EXPECT_EQ(with(one + "," + one), "bad_snapshot");  // two in one place
  for (const auto& [from, to] : {std::pair{"\"size\": 2048", "\"size\": 4096"}, std::pair{"\"size\": 2048", "\"size\": -1"}, std::pair{"\"total_size\": 2048", "\"total_size\": 999999999999999"}, std::pair{"\"address\": 4096, \"state\"", "\"address\": 1, \"state\""},
                                 std::pair{"\"device\": 0", "\"device\": 5000"}, std::pair{"\"address\": 4096, \"total", "\"address\": 9223372036854775807, \"total"}, std::pair{"\"inactive\"", "\"asleep\""}}) {
    std::string text = one;
    text.replace(text.find(from), std::string(from).size(), to);
    EXPECT_NE(with(text), "") << to;
  }
}

RC_GTEST_PROP(SnapshotFormats, pickleAndJsonTellTheSame, ()) {
  test::SnapshotMaker m;
  std::vector<int> stacks;
  for (int i = 0; i < 4; ++i) {
    std::vector<test::MadeFrame> frames;
    for (int k = *rc::gen::inRange(0, 5); k > 0; --k) frames.push_back({"/a/" + std::to_string(*rc::gen::inRange(0, 3)) + ".py", *rc::gen::inRange(0, 1000), "f" + std::to_string(k)});
    stacks.push_back(m.stack(frames));
  }
  std::vector<BlockId> live;
  for (int i = *rc::gen::inRange(0, 60); i > 0; --i) {
    if (live.empty() || *rc::gen::inRange(0, 3) > 0) {
      live.push_back(m.alloc(*rc::gen::inRange(1, 64 << 20), stacks[static_cast<std::size_t>(*rc::gen::inRange(0, 4))], *rc::gen::inRange(0, 2) * 1000));
    } else {
      const auto at = static_cast<std::size_t>(*rc::gen::inRange<int>(0, static_cast<int>(live.size())));
      m.free(live[at]);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  const test::MadeSnapshot& made = m.finish();
  const auto four = read(test::pickled(made, 4), 1 + static_cast<std::size_t>(*rc::gen::inRange(0, 300))), two = read(test::pickled(made, 2)), json = read_json(test::as_json(made));
  RC_ASSERT(four.has_value());
  RC_ASSERT(two.has_value());
  RC_ASSERT(json.has_value());
  RC_ASSERT(told(*four) == told(*two));
  RC_ASSERT(told(*four) == told(*json));
  RC_ASSERT(four->entries.size() == made.entries.size());
  for (std::size_t i = 0; i < made.entries.size(); ++i) {
    const TraceEntry& e = four->entries[i];
    RC_ASSERT(name_of(e.action) == made.entries[i].action);
    RC_ASSERT(e.address == made.entries[i].address);
    RC_ASSERT(e.bytes().count == made.entries[i].size);
    RC_ASSERT(e.time_us == made.entries[i].time_us);
    RC_ASSERT(four->streams[e.stream] == made.entries[i].stream);
    RC_ASSERT(four->stack(e.stack).size() == made.stacks[static_cast<std::size_t>(made.entries[i].stack)].size());
  }
}

}  // namespace
}  // namespace dryfit
