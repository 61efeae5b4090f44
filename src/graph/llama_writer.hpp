// Parts of a block that Llama and its kin share. Source: transformers 4.57, models/llama/modeling_llama.py and those made from it.
// B device batch, T length, H heads, K KV heads, h head size, R rotary dimensions.
#pragma once

#include <array>

#include "graph/model_writer.hpp"

namespace dryfit {

class LlamaBlocks : protected ModelWriter {
 protected:
  using ModelWriter::ModelWriter;
  // The modules of a gated MLP, and the roles of gate, activation, up, product and down.
  struct Names { const char *gate, *up, *down; std::array<const char*, 5> roles; };

  // Before the blocks: ids, their padding, the tables of positions. embedding: its module; frequencies: what their buffer is in. Returns the embedded ids.
  NodeId begin(const char* embedding, Dtype frequencies);
  // After the last norm: logits, the loss; under autocast accelerate hands the logits out in fp32.
  void end(NodeId x, const char* embedding);
  // LlamaRMSNorm: fp32 statistics, the weight times what was cast back.
  NodeId norm(NodeId x, const char* module, const char* role);
  // LlamaRotaryEmbedding: cosines and sines. frequencies: [R/2, 1] in fp32, positions: [T, 1] likewise.
  std::array<NodeId, 2> tables(NodeId frequencies, NodeId positions, Dtype d);
  NodeId rotate(NodeId x, const char* role);
  // Keys and values seen by all heads: copies.
  NodeId expand(NodeId x, const char* role);
  // Reads cos_ and sin_.
  NodeId attend(NodeId x);
  NodeId feed_forward(NodeId x, const Names& names);

  NodeId cos_ = kNone, sin_ = kNone;

 private:
  NodeId labels_ = kNone;
};

}  // namespace dryfit
