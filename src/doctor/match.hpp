// Which tensor a failed request was for: the predicted run's allocations whose printed size is the one in the message, nearest first.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "doctor/log_text.hpp"
#include "memory/allocator.hpp"
#include "passes/program.hpp"

namespace dryfit {

struct TensorMatch {
  TensorInfo tensor;
  std::string phase, part, op;   // of the predicted run: "train_step", "backward", "logits"
  std::int32_t micro_step = 0;
  Bytes before;                  // allocated in the prediction when the request comes
  bool reachable = true;         // the prediction needed no more before that moment than the message says was there
};

struct RequestQuery {
  Amount requested;
  std::optional<Amount> allocated;  // as the message says
  Part part = Part::unknown;        // from the traceback
  Phase phase = Phase::unknown;
  AllocatorConfig config;
  bool as_requested = false;        // the message prints the request itself, not what would be asked of the driver
};

// At most `most`, one for each tensor (role, dtype, shape), phase and part; empty for sizes every small tensor shares (2 and 20 MiB).
std::vector<TensorMatch> match_request(const Program& program, const RequestQuery& query, std::size_t most = 5);

// Where the predicted run itself dies when the driver gives out `capacity` in all: the request that fails. Empty: it does not.
std::optional<TensorMatch> predicted_failure(const Program& program, const AllocatorConfig& config, Bytes capacity);

// Whether a message with this size cannot tell which tensor was asked for.
bool is_segment_size(Amount requested, const AllocatorConfig& config);

}  // namespace dryfit
