// What nanochat's data loader takes of the host: text is read, tokenized and packed by the thread that launches the kernels, once a micro-batch.
#pragma once

#include "workload/workload.hpp"

namespace dryfit {

// Rows of T + 1 tokens by best fit, once the loader has run for a while: documents longer than a row are cut, and what is cut off was tokenized for nothing.
struct PackedRow {
  double tokens = 0;     // tokenized for it
  double documents = 0;  // put into it; the loader looks through its whole buffer for each
};
PackedRow packed_row(const NanochatVersion& version, std::int64_t length);

// Seconds of one rank for one micro-batch of scripts.base_train, on the CPU that its pieces were measured on (tools/measure/loader.py) with 4 free cores for the tokenizer's threads. 0 for other
// scripts, whose rows are made otherwise, and for transformers.
double loader_seconds(const Workload& workload);

// Factors of loader_seconds that hosts span: the fastest CPUs, and virtual cores with none to spare for the tokenizer's threads.
constexpr double kFastHost = 0.5, kSlowHost = 2.5;

}  // namespace dryfit
