// torch.optim and its kin on the eager engine: state made at the first step, temporaries of each step, clipping. Sources:
// torch/optim/{adamw,adam,sgd,rmsprop,adagrad,_muon}.py, torch/nn/utils/clip_grad.py, transformers/optimization.py, bitsandbytes/optim/{optimizer,ademamix}.py, Lion's paper's code.
#pragma once

#include <span>
#include <vector>

#include "passes/eager.hpp"
#include "workload/training.hpp"

namespace dryfit::eager {

struct Trained { Tensor parameter; const char* role; int layer; bool embedding = false; };  // embedding: of an nn.Embedding, maybe tied

class Optimizer {
 public:
  Optimizer(Tape& tape, OptimizerKind kind, std::vector<Trained> parameters, double weight_decay = 0);
  void clip();                 // torch.nn.utils.clip_grad_norm_, foreach
  void step();
  void zero_grad();
  std::int64_t state_bytes() const;  // after the first step, as stored; 0 before

 private:
  Tensor like(const char* role, const Trained& p, Dtype d);
  Tensor make(const char* role, int layer, Dims d, Dtype dtype);
  void first_state();
  void update();
  void tell_update();
  void bitsandbytes_state(const Trained& p, const BitsandbytesOptimizer& theirs);
  void of_all(std::vector<Tensor>& held, const char* role);
  void by_groups(std::initializer_list<const char*> roles);
  void single_temporaries();
  void adafactor();
  void adafactor_state(const Trained& p);
  void muon();
  void tell_muon();

  Tape& t_;
  OptimizerKind kind_;
  std::vector<Trained> all_, matrices_, parameters_;  // every one; Muon's; the others, of another kind all of them
  std::vector<Tensor> state_;
  bool begun_ = false, decays_ = false;
};

}  // namespace dryfit::eager
