// Parameter: one trainable tensor of a model, by name, shape and group.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/dtype.hpp"

namespace dryfit {

enum class ParamGroup { wte, value_embeds, lm_head, transformer_matrices, scalars };  // nanochat's own names
std::string_view name_of(ParamGroup group);

struct Parameter {
  std::string name;                 // as in the model's state_dict: "transformer.h.3.attn.c_q.weight"
  std::vector<std::int64_t> shape;
  Dtype dtype = Dtype::fp32;
  ParamGroup group = ParamGroup::scalars;
  int layer = -1;                   // -1: not in a block
  std::int64_t count() const;       // elements
  Bytes bytes() const;              // count * size_of(dtype), not rounded
};

}  // namespace dryfit
