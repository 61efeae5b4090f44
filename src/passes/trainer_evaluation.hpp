// Trainer's evaluation loop as events of a tape: the model in evaluation mode under no_grad, and what the loop keeps of each batch. SFTTrainer's, whose loss comes from tiles, too.
// Source: transformers 4.57 and 5.17 trainer.py (evaluation_loop, prediction_step), trainer_pt_utils.py (EvalLoopContainer); TRL 1.16 trainer/sft_trainer.py.
#pragma once

#include "passes/eager.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

// The phase "validation" of a training that asks for it (Training::lays_out_evaluation). computes: what the model reads, changed while it evaluates and then as before. Nothing but what the process keeps for good is left alive.
void lay_out_evaluation(Tape& tape, const Architecture& architecture, const Training& training, Training& computes, Transformer& model);

}  // namespace dryfit::eager
