// Comes before the first line of every file compiled here; mlx-c's too, which it mends in two places.
#pragma once

#include "mlx/c/error.h"

// mlx-c hands the text of exceptions to a printf-like function as its *pattern*; a file name with a `%` in it would do harm.
#undef mlx_error
#define mlx_error(message) _mlx_error(__FILE__, __LINE__, "%s", message)

// mlx-c uses std::format without including it, and GCC 12 has none. `{}` fields only, which is all that mlx-c uses.
#if __has_include(<format>)
#include <format>
#else

#include <sstream>
#include <string>
#include <string_view>

namespace vllm_mlx {

inline void format_rest(std::ostringstream& out, std::string_view rest) {
  out << rest;
}

template <typename First, typename... More>
void format_rest(std::ostringstream& out, std::string_view rest, const First& first, const More&... more) {
  const auto field = rest.find("{}");
  if (field == std::string_view::npos) {
    out << rest;
    return;
  }
  out << rest.substr(0, field) << first;
  format_rest(out, rest.substr(field + 2), more...);
}

} // namespace vllm_mlx

namespace std {

template <typename... Args>
string format(string_view pattern, const Args&... args) {
  ostringstream out;
  vllm_mlx::format_rest(out, pattern, args...);
  return out.str();
}

} // namespace std

#endif
