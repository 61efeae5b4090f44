// dryfit for C++20 and later: one call over the C ABI, header-only. JSON in, JSON out; bring your own JSON library to read the reply.
//   const dryfit::Answer a = dryfit::call(R"({"command":"check","args":{"depth":26,"gpu":"h100","gpus":8}})");
//   if (a.fits()) std::puts("go");
#pragma once

#include <dryfit/dryfit.h>

#include <memory>
#include <string>
#include <string_view>

namespace dryfit {

struct Answer {
  std::string json;                 // docs/schema; empty only where memory ran out
  int status = DRYFIT_INTERNAL;     // DRYFIT_FITS, DRYFIT_DOES_NOT_FIT, DRYFIT_BAD_INPUT, DRYFIT_INTERNAL
  bool fits() const { return status == DRYFIT_FITS; }
  bool failed() const { return status != DRYFIT_FITS && status != DRYFIT_DOES_NOT_FIT; }  // json holds {"error": ...}
};

// request: as dryfit_call documents it.
inline Answer call(std::string_view request) {
  Answer answer;
  const std::unique_ptr<char, void (*)(char*)> reply(dryfit_call(request.data(), request.size(), &answer.status), dryfit_free);
  if (reply) answer.json = reply.get();
  return answer;
}

inline std::string_view version() { return dryfit_version(); }

}  // namespace dryfit
