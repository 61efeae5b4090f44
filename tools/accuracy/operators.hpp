// dryfit-accuracy --operators data/measured/operators.csv: forward and backward of one operator, as Liger-Kernel's benchmark measures them, against the eager engine.
#pragma once

namespace dryfit {

// mode: "" rows and summary · --summary · --errors - · --check FILE. Returns the exit status.
int operators_accuracy(const char* path, const char* mode, const char* argument);

}  // namespace dryfit
