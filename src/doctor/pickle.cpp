// See pickle.hpp. Opcodes: Lib/pickletools.py of CPython.
#include "doctor/pickle.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "doctor/log_text.hpp"

namespace dryfit {

namespace {

constexpr const char* kWrite = "write it again: torch.cuda.memory._dump_snapshot(\"snapshot.pickle\"), or pickle.dump(snapshot, file, protocol=4)";

template <class T>
T read_fixed(std::string_view in) {
  T v{};
  std::memcpy(&v, in.data(), sizeof(T));
  if constexpr (std::endian::native == std::endian::big) v = std::byteswap(v);
  return v;
}

std::uint64_t read_width(std::string_view in, std::size_t width) {
  switch (width) {
    case 1: return static_cast<unsigned char>(in[0]);
    case 2: return read_fixed<std::uint16_t>(in);
    case 4: return read_fixed<std::uint32_t>(in);
    default: return read_fixed<std::uint64_t>(in);
  }
}

struct Opcode { unsigned char code; const char* name; };
// Of protocols 0 and 1, with their operands as text.
constexpr Opcode kText[] = {{'I', "INT"}, {'L', "LONG"}, {'F', "FLOAT"}, {'V', "UNICODE"}, {'S', "STRING"}, {'p', "PUT"}, {'g', "GET"}};
constexpr Opcode kBuilding[] = {{'c', "GLOBAL"}, {0x93, "STACK_GLOBAL"}, {'R', "REDUCE"}, {'b', "BUILD"}, {0x81, "NEWOBJ"}, {0x92, "NEWOBJ_EX"}, {'i', "INST"}, {'o', "OBJ"},
                                {0x82, "EXT1"}, {0x83, "EXT2"}, {0x84, "EXT4"}, {'P', "PERSID"}, {'Q', "BINPERSID"}, {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"}};

const char* name_in(std::span<const Opcode> opcodes, unsigned char code) {
  const auto found = std::ranges::find(opcodes, code, &Opcode::code);
  return found == opcodes.end() ? nullptr : found->name;
}

// Bytes after the opcode, for those of a fixed size; 0 for the others.
std::size_t operand_of(unsigned char op) {
  switch (op) {
    case 0x80: case 'K': case 'q': case 'h': return 1;
    case 'M': return 2;
    case 'J': case 'r': case 'j': return 4;
    case 'G': case 0x95: return 8;
    default: return 0;
  }
}

}  // namespace

PickleReader::Step PickleReader::failed(std::string code, std::string message, std::string hint) {
  error_ = {std::move(code), std::move(message), std::move(hint), "byte " + std::to_string(at_)};
  return Step::failed;
}

PickleReader::Step PickleReader::result(bool ok) {
  if (ok) return Step::done;
  return failed("bad_pickle", "this pickle is damaged, or no snapshot: " + store_.problem(), kWrite);
}

PickleReader::Step PickleReader::text(std::string_view& in, std::size_t width, bool bytes) {
  if (in.size() < width) return Step::starved;
  const std::uint64_t length = read_width(in, width);
  if (length > kLongestText) return failed("bad_pickle", "a text of " + std::to_string(length) + " bytes: no snapshot holds one", kWrite);
  if (in.size() - width < length) return Step::starved;
  const std::string_view body = in.substr(width, length);
  if (bytes) store_.push_other();
  else store_.push_text(body);
  in.remove_prefix(width + length);
  return Step::done;
}

// Little-endian two's complement of any length. Up to 64 bits: a number, addresses beyond 2^63 as the processor sees them.
PickleReader::Step PickleReader::long_integer(std::string_view& in, std::size_t width) {
  if (in.size() < width) return Step::starved;
  const std::uint64_t length = read_width(in, width);
  if (length > kLongestText) return failed("bad_pickle", "a number of " + std::to_string(length) + " bytes", kWrite);
  if (in.size() - width < length) return Step::starved;
  const std::string_view body = in.substr(width, length);
  in.remove_prefix(width + length);
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(body.size(), 8); ++i) value |= static_cast<std::uint64_t>(static_cast<unsigned char>(body[i])) << (8 * i);
  if (!body.empty() && body.size() < 8 && (body.back() & 0x80) != 0) value |= ~std::uint64_t{0} << (8 * body.size());
  const char fill = body.size() > 8 && (body.back() & 0x80) != 0 ? '\xff' : '\0';
  if (body.size() > 8 && !std::ranges::all_of(body.substr(8), [&](char c) { return c == fill; })) store_.push_other();
  else store_.push_integer(static_cast<std::int64_t>(value));
  return Step::done;
}

PickleReader::Step PickleReader::put(std::uint64_t index) {
  const auto top = store_.top();
  if (!top) return failed("bad_pickle", "this pickle remembers a value that is not there", kWrite);
  ++puts_;
  if (index > 2 * puts_ + (1 << 16)) return failed("bad_pickle", "this pickle remembers number " + std::to_string(index) + " out of order", kWrite);
  if (index >= memo_.size()) memo_.resize(index + 1);
  memo_[index] = *top;
  return Step::done;
}

PickleReader::Step PickleReader::get(std::uint64_t index) {
  if (index >= memo_.size()) return failed("bad_pickle", "this pickle asks for number " + std::to_string(index) + ", which it never kept", kWrite);
  store_.push(memo_[index]);
  return Step::done;
}

PickleReader::Step PickleReader::refuse(unsigned char op, std::string_view in) {
  if (const char* name = name_in(kText, op)) {
    return failed("old_pickle", "opcode " + std::string(name) + " is of pickle's protocols 0 and 1; dryfit reads 2 to 5", kWrite);
  }
  const char* name = name_in(kBuilding, op);
  if (name == nullptr) return failed("bad_pickle", "no pickle has opcode " + std::to_string(op) + ": damaged, or not a pickle", kWrite);
  std::string what;
  if (op == 'c' || op == 'i') {
    const std::size_t first = in.find('\n'), second = first == std::string_view::npos ? first : in.find('\n', first + 1);
    if (second == std::string_view::npos && in.size() < 512) return Step::starved;
    if (second != std::string_view::npos) what = printable(in.substr(0, first), 100) + "." + printable(in.substr(first + 1, second - first - 1), 100);
  } else if (op == 0x93 && store_.text_below_top(0) && store_.text_below_top(1)) {
    what = printable(*store_.text_below_top(1), 100) + "." + printable(*store_.text_below_top(0), 100);
  }
  return failed("unsafe_pickle", what.empty() ? "this pickle wants to build an object (" + std::string(name) + "); dryfit executes nothing" : "this pickle wants to build '" + what + "'; dryfit executes nothing",
                "a memory snapshot holds lists, dictionaries, text and numbers only: is this a checkpoint? Give what torch.cuda.memory._dump_snapshot writes");
}

PickleReader::Step PickleReader::step(std::string_view& in) {
  const auto op = static_cast<unsigned char>(in[0]);
  const std::size_t operand = operand_of(op);
  if (in.size() < 1 + operand) return Step::starved;
  std::string_view rest = in.substr(1);
  Step out = Step::done;
  switch (op) {
    case 'h': out = get(static_cast<unsigned char>(rest[0])); break;                         // BINGET
    case 'j': out = get(read_fixed<std::uint32_t>(rest)); break;                             // LONG_BINGET
    case 0x94: out = put(memo_.size()); break;                                               // MEMOIZE
    case 'q': out = put(static_cast<unsigned char>(rest[0])); break;                         // BINPUT
    case 'r': out = put(read_fixed<std::uint32_t>(rest)); break;                             // LONG_BINPUT
    case 'K': store_.push_integer(static_cast<unsigned char>(rest[0])); break;               // BININT1
    case 'M': store_.push_integer(read_fixed<std::uint16_t>(rest)); break;                   // BININT2
    case 'J': store_.push_integer(read_fixed<std::int32_t>(rest)); break;                    // BININT
    case 0x8a: out = long_integer(rest, 1); break;                                           // LONG1
    case 0x8b: out = long_integer(rest, 4); break;                                           // LONG4
    case 'G': store_.push_real(std::bit_cast<double>(std::byteswap(read_fixed<std::uint64_t>(rest)))); break;  // BINFLOAT
    case 'N': store_.push_none(); break;
    case 0x88: store_.push_boolean(true); break;                                             // NEWTRUE
    case 0x89: store_.push_boolean(false); break;                                            // NEWFALSE
    case 0x8c: case 'U': out = text(rest, 1, false); break;                                  // SHORT_BINUNICODE, SHORT_BINSTRING
    case 'X': case 'T': out = text(rest, 4, false); break;                                   // BINUNICODE, BINSTRING
    case 0x8d: out = text(rest, 8, false); break;                                            // BINUNICODE8
    case 'C': out = text(rest, 1, true); break;                                              // SHORT_BINBYTES
    case 'B': out = text(rest, 4, true); break;                                              // BINBYTES
    case 0x8e: case 0x96: out = text(rest, 8, true); break;                                  // BINBYTES8, BYTEARRAY8
    case '(': store_.push_mark(); break;
    case '}': store_.push_dict(); break;
    case ']': case 0x8f: store_.push_list(); break;                                          // EMPTY_LIST, EMPTY_SET
    case ')': out = result(store_.tuple(0)); break;                                          // EMPTY_TUPLE
    case 0x85: out = result(store_.tuple(1)); break;
    case 0x86: out = result(store_.tuple(2)); break;
    case 0x87: out = result(store_.tuple(3)); break;
    case 't': case 'l': case 0x91: out = result(store_.list_marked()); break;                // TUPLE, LIST, FROZENSET
    case 'd': out = result(store_.dict_marked()); break;                                     // DICT
    case 'a': out = result(store_.append_one()); break;
    case 'e': case 0x90: out = result(store_.append_marked()); break;                        // APPENDS, ADDITEMS
    case 's': out = result(store_.set_one()); break;
    case 'u': out = result(store_.set_marked()); break;
    case '0': out = result(store_.pop()); break;
    case '1': out = result(store_.pop_mark()); break;
    case '2': out = result(store_.duplicate()); break;
    case 0x80:                                                                               // PROTO
      if (static_cast<unsigned char>(rest[0]) > 5) out = failed("bad_pickle", "pickle protocol " + std::to_string(static_cast<unsigned char>(rest[0])) + " is not known; dryfit reads 2 to 5", kWrite);
      break;
    case 0x95: break;                                                                        // FRAME: only helps to read ahead
    case '.': complete_ = true; break;
    default: out = refuse(op, rest);
  }
  if (out == Step::done) in = rest.substr(operand);
  return out;
}

// Runs of values that were kept before: nine tenths of a snapshot are frames of stacks.
void PickleReader::remembered(std::string_view& in) {
  const char* at = in.data();
  const char* const end = at + std::min<std::size_t>(in.size(), 1 << 16);  // then memory is looked at again
  const std::size_t most = memo_.size();
  for (; end - at >= 5; at += *at == 'j' ? 5 : 2) {
    std::size_t index = 0;
    if (*at == 'j') index = read_fixed<std::uint32_t>({at + 1, 4});
    else if (*at == 'h') index = static_cast<unsigned char>(at[1]);
    else break;
    if (index >= most) break;
    store_.push(memo_[index]);
  }
  in.remove_prefix(static_cast<std::size_t>(at - in.data()));
}

Result<void> PickleReader::decode(std::string_view in) {
  const std::int64_t start = base_;
  const std::size_t size = in.size();
  while (!in.empty() && !complete_) {
    remembered(in);
    if (in.empty()) break;
    at_ = start + static_cast<std::int64_t>(size - in.size());
    const Step s = step(in);
    if (s == Step::failed) return std::unexpected(error_);
    if (s == Step::starved) break;
    if (at_ - checked_ < (1 << 16)) continue;
    checked_ = at_;
    if (static_cast<std::int64_t>(store_.memory() + memo_.memory()) > (64 << 20) + at_ / 10 * 13) {
      failed("too_large", "this pickle unfolds to more than its own size: no snapshot does", kWrite);
      return std::unexpected(error_);
    }
  }
  base_ = start + static_cast<std::int64_t>(size - in.size());
  if (complete_) carry_.clear();
  else if (carry_.empty()) carry_.assign(in);
  else carry_.erase(0, size - in.size());
  return {};
}

Result<void> PickleReader::feed(std::string_view bytes) {
  if (complete_) return {};
  if (carry_.empty()) return decode(bytes);
  carry_ += bytes;
  return decode(carry_);
}

Result<void> PickleReader::finish() {
  if (complete_) return {};
  return fail("truncated", "this pickle ends in the middle, after " + std::to_string(bytes()) + " bytes", "copy the file again; where writing it was interrupted, dump it once more", "byte " + std::to_string(bytes()));
}

}  // namespace dryfit
