// See probe_snapshot_json.hpp.
#include "doctor/probe_snapshot_json.hpp"

#include <cstddef>
#include <iterator>
#include <nlohmann/json.hpp>

#include "doctor/log_text.hpp"

namespace dryfit {

namespace {

constexpr const char* kHint = "write it again: json.dump(torch.cuda.memory._snapshot(), file), or better torch.cuda.memory._dump_snapshot(\"snapshot.pickle\")";

// Characters of the pieces, one after the other; a piece is let go once it is behind.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor() = default;
  explicit Cursor(std::deque<std::string>& pieces) : pieces_(&pieces) { settle(); }
  reference operator*() const { return pieces_->front()[at_]; }
  Cursor& operator++() {
    ++at_;
    settle();
    return *this;
  }
  Cursor operator++(int) {
    Cursor before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const Cursor& a, const Cursor& b) { return a.done() == b.done(); }  // only ever compared with the end
  friend bool operator!=(const Cursor& a, const Cursor& b) { return !(a == b); }

 private:
  bool done() const { return pieces_ == nullptr || pieces_->empty(); }
  void settle() {
    while (!pieces_->empty() && at_ >= pieces_->front().size()) {
      pieces_->pop_front();
      at_ = 0;
    }
  }
  std::deque<std::string>* pieces_ = nullptr;
  std::size_t at_ = 0;
};

struct Sink {
  SnapshotStore& store;
  std::string problem, where;
  std::size_t open = 0;

  bool room() {
    if (store.depth() < (std::size_t{1} << 24)) return true;
    problem = "more values side by side than a snapshot holds";
    return false;
  }
  bool ok(bool fine) {
    if (!fine && problem.empty()) problem = store.problem();
    return fine && room();
  }
  bool null() { return store.push_none(), room(); }
  bool boolean(bool b) { return store.push_boolean(b), room(); }
  bool number_integer(std::int64_t n) { return store.push_integer(n), room(); }
  bool number_unsigned(std::uint64_t n) { return store.push_integer(static_cast<std::int64_t>(n)), room(); }  // addresses beyond 2^63 as the processor sees them
  bool number_float(double x, const std::string&) { return store.push_real(x), room(); }
  bool string(const std::string& s) { return store.push_text(s), room(); }
  bool binary(const std::vector<std::uint8_t>&) { return store.push_other(), room(); }
  bool key(const std::string& s) { return string(s); }
  bool start_object(std::size_t) { return open_one(); }
  bool start_array(std::size_t) { return open_one(); }
  bool end_object() { return --open, ok(store.dict_marked()); }
  bool end_array() { return --open, ok(store.list_marked()); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) {
    problem = e.what();
    if (const auto colon = problem.rfind(": "); colon != std::string::npos && colon + 2 < problem.size()) problem.erase(0, colon + 2);
    where = "byte " + std::to_string(position);
    return false;
  }

 private:
  bool open_one() {
    if (++open > 64) {
      problem = "more than 64 brackets inside each other";
      return false;
    }
    store.push_mark();
    return true;
  }
};

}  // namespace

void SnapshotJson::feed(std::string_view bytes) {
  bytes_ += static_cast<std::int64_t>(bytes.size());
  if (!bytes.empty()) pieces_.emplace_back(bytes);
}

Result<void> SnapshotJson::finish() {
  Sink sink{store_, {}, {}};
  const bool good = nlohmann::json::sax_parse(Cursor(pieces_), Cursor(), &sink);
  pieces_.clear();
  if (good) return {};
  return fail("bad_json", "this JSON is damaged, or no snapshot: " + printable(sink.problem, 200), kHint, sink.where);
}

}  // namespace dryfit
