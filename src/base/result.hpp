// Result<T>: a value or an Error. Every error tells what is wrong, where, and the way out.
#pragma once

#include <expected>
#include <string>
#include <utility>

namespace dryfit {

struct Error {
  std::string code;     // stable, for programs: "unknown_gpu", "bad_number", "illegal_batch", ...
  std::string message;  // what is wrong, one line, no trailing period
  std::string hint;     // the way out; never empty
  std::string where;    // flag, file:line or field; may be empty
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(std::string code, std::string message, std::string hint, std::string where = {}) {
  return std::unexpected(Error{std::move(code), std::move(message), std::move(hint), std::move(where)});
}

}  // namespace dryfit
