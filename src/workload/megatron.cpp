// See megatron.hpp. Source: megatron/core/pipeline_parallel/schedules.py get_pp_rank_microbatches, get_schedule_table;
// transformer/transformer_block.py get_num_layers_to_build.
#include "workload/megatron.hpp"

#include <algorithm>
#include <optional>

#include "base/text.hpp"

namespace dryfit {

namespace {

// What a stage counts as its layers, the embedding and the loss among them where they count.
std::int64_t layers_of_stage(const MegatronRun& run, std::int64_t layers, std::int64_t stage) {
  if (stage == 0 && run.first_layers) return *run.first_layers;
  if (stage == run.pipeline - 1 && run.last_layers) return *run.last_layers;
  const std::int64_t rest = layers - run.first_layers.value_or(0) - run.last_layers.value_or(0), stages = run.pipeline - (run.first_layers ? 1 : 0) - (run.last_layers ? 1 : 0);
  return (rest + (run.embedding_counts ? 1 : 0) + (run.loss_counts ? 1 : 0)) / std::max<std::int64_t>(1, stages);
}

std::int64_t layers_of_chunk(const MegatronRun& run, std::int64_t layers, std::int64_t stage, std::int64_t chunk) {
  const bool first = stage == 0 && chunk == 0, last = stage == run.pipeline - 1 && chunk == run.virtual_stages - 1;
  return layers_of_stage(run, layers, stage) / run.virtual_stages - (first && run.embedding_counts ? 1 : 0) - (last && run.loss_counts ? 1 : 0);
}

}  // namespace

LayerRange layers_of(const MegatronRun& run, std::int64_t layers, std::int64_t stage, std::int64_t chunk) {
  LayerRange out{0, layers_of_chunk(run, layers, stage, chunk)};
  for (std::int64_t c = 0; c <= chunk; ++c) {
    for (std::int64_t s = 0; s < (c == chunk ? stage : run.pipeline); ++s) out.first += layers_of_chunk(run, layers, s, c);
  }
  return out;
}

Result<void> check_layers(const MegatronRun& run, std::int64_t layers) {
  const bool uneven = run.first_layers || run.last_layers;
  const char* where = uneven ? "--decoder-first-pipeline-num-layers" : "--pipeline-model-parallel-size";
  const auto bad = [&](std::string message, std::string hint) { return fail("bad_value", std::move(message), std::move(hint), where); };
  if (uneven && (run.embedding_counts || run.loss_counts)) return bad("an uneven pipeline does not go with --account-for-embedding-in-pipeline-split or -loss-", "use one of them");
  if (uneven && run.pipeline == 1) return bad("an uneven pipeline needs a pipeline", "add --pipeline-model-parallel-size 2, or leave it out");
  std::int64_t all = 0;
  for (std::int64_t s = 0; s < run.pipeline; ++s) {
    for (std::int64_t c = 0; c < run.virtual_stages; ++c) {
      const std::int64_t here = layers_of_chunk(run, layers, s, c);
      all += here;
      if (here < 0 || layers_of_stage(run, layers, s) % run.virtual_stages != 0) all = -(std::int64_t{1} << 40);
    }
  }
  if (all == layers) return {};
  return bad(std::to_string(layers) + " layers do not divide over " + std::to_string(run.pipeline) + " stages of " + std::to_string(run.virtual_stages) + " chunks" + (uneven ? " as asked" : ""), uneven ? "give the first and the last stage layers that leave a multiple for the others" : "use another --pipeline-model-parallel-size");
}

std::int64_t warmup_passes(const MegatronRun& run, std::int64_t micro_batches, std::int64_t stage) {
  if (run.pipeline == 1) return 0;
  const std::int64_t behind = run.pipeline - stage - 1;
  const std::int64_t warmup = run.virtual_stages == 1 ? behind : 2 * behind + (run.virtual_stages - 1) * run.group();
  return std::min(warmup, micro_batches * run.virtual_stages);
}

std::vector<Pass> schedule_of(const MegatronRun& run, std::int64_t micro_batches) {
  std::vector<Pass> out;
  const std::int64_t group = run.group();
  for (std::int64_t first = 0; first < micro_batches; first += group) {
    for (std::int64_t chunk = 0; chunk < run.virtual_stages; ++chunk) {
      for (std::int64_t m = first; m < std::min(first + group, micro_batches); ++m) out.push_back({m, chunk});
    }
  }
  return out;
}

namespace {

// Sums and products of lists and numbers, "([0]*3+[1]*2)*4".
class LayerPattern {
 public:
  explicit LayerPattern(const std::string& text) {
    for (const char c : text) {
      if (c != ' ' && c != '\'' && c != '"') text_ += c;
    }
  }
  std::optional<std::vector<bool>> read() {
    auto out = sum();
    return at_ == text_.size() ? out : std::nullopt;
  }

 private:
  static constexpr std::size_t kMost = 4096;

  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::optional<std::vector<bool>> sum() {
    auto out = product();
    while (out && take('+')) {
      const auto more = product();
      if (!more || out->size() + more->size() > kMost) return std::nullopt;
      out->insert(out->end(), more->begin(), more->end());
    }
    return out;
  }
  std::optional<std::vector<bool>> product() {
    auto out = list();
    while (out && take('*')) {
      const std::size_t from = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && at_ - from < 5) ++at_;
      const auto times = parse_int(text_.substr(from, at_ - from), "");
      if (!times || *times < 0 || static_cast<std::size_t>(*times) * out->size() > kMost) return std::nullopt;
      const std::vector<bool> once = *out;
      out->clear();
      for (std::int64_t i = 0; i < *times; ++i) out->insert(out->end(), once.begin(), once.end());
    }
    return out;
  }
  std::optional<std::vector<bool>> list() {
    if (take('(')) {
      if (++depth_ > 64) return std::nullopt;
      auto out = sum();
      --depth_;
      return take(')') ? out : std::nullopt;
    }
    if (!take('[')) return std::nullopt;
    std::vector<bool> out;
    while (!take(']')) {
      if (!out.empty() && !take(',')) return std::nullopt;
      if (take('0')) out.push_back(false);
      else if (take('1')) out.push_back(true);
      else return std::nullopt;
    }
    return out;
  }

  std::string text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

Result<std::vector<bool>> expert_layers_of(const std::string& text, std::int64_t layers, const std::string& where) {
  if (text.find('[') == std::string::npos) {
    const auto every = parse_int(text, where);
    if (!every) return std::unexpected(every.error());
    if (*every < 1) return fail("bad_value", where + " " + text.substr(0, 40) + " is out of range", "1 makes every layer a mixture", where);
    std::vector<bool> out(static_cast<std::size_t>(layers));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::int64_t>(i) % *every == 0;
    return out;
  }
  auto out = LayerPattern(text).read();
  if (!out) return fail("bad_value", where + " " + text.substr(0, 60) + " is not read", "write a number, or a list such as ([0]*3+[1]*58)", where);
  if (static_cast<std::int64_t>(out->size()) != layers) return fail("bad_value", where + " is of " + std::to_string(out->size()) + " layers, and there are " + std::to_string(layers), "one 0 or 1 for each layer", where);
  return std::move(*out);
}

}  // namespace dryfit
