// The version this was built as.
#pragma once

#ifndef DRYFIT_VERSION
#define DRYFIT_VERSION "0"
#endif
