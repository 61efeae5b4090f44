// dryfit-accuracy --own data/measured/own.csv: runs that tools/measure measured itself, all of their figures.
#pragma once

namespace dryfit {

// mode: "" rows and summary · --summary · --steps (times of steps) · --errors - · --check FILE · --intervals DATE (a row of data/intervals.csv). Returns the exit status.
int own_accuracy(const char* path, const char* mode, const char* argument);

}  // namespace dryfit
