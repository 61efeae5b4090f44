// The C ABI (include/dryfit/dryfit.h): memory in and out, and no exception across it.
#include <dryfit/dryfit.h>

#include <cstdlib>
#include <cstring>

#include "base/version.hpp"
#include "api/call.hpp"
#ifndef __wasm__
#include "cli/terminal.hpp"
#endif

namespace {

dryfit::cli::Env local_env() {
#ifdef __wasm__
  return dryfit::api::closed_env();  // a page has no machine to look at
#else
  return dryfit::cli::machine_env();
#endif
}

char* call(const char* request, size_t size, int* status) {
  const dryfit::api::Reply reply = dryfit::api::answer_json(request == nullptr ? std::string_view() : std::string_view(request, size), local_env());
  char* out = static_cast<char*>(std::malloc(reply.body.size() + 1));
  if (out == nullptr) return nullptr;
  std::memcpy(out, reply.body.c_str(), reply.body.size() + 1);
  if (status != nullptr) *status = reply.status;
  return out;
}

}  // namespace

char* dryfit_call(const char* request, size_t size, int* status) {
  if (status != nullptr) *status = DRYFIT_INTERNAL;
#ifdef __cpp_exceptions
  try {
    return call(request, size, status);
  } catch (...) {  // memory ran out: nothing else throws
    return nullptr;
  }
#else
  return call(request, size, status);
#endif
}

void dryfit_free(char* reply) { std::free(reply); }

const char* dryfit_version(void) { return DRYFIT_VERSION; }
