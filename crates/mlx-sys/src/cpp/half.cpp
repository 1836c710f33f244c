// mlx-c declares the 16-bit float accessors only where the compiler has such types in C (aarch64). These fill the gap elsewhere,
// under the same names, with the bits in a uint16_t: what crosses the boundary is a pointer, so that callers see no difference.
#include <cstring>

#include "mlx/c/array.h"
#include "mlx/c/private/array.h"

namespace {

template <typename T>
const uint16_t* data_bits(mlx_array arr) {
  try {
    return reinterpret_cast<const uint16_t*>(mlx_array_get_(arr).data<T>());
  } catch (const std::exception& e) {
    mlx_error(e.what());
    return nullptr;
  }
}

template <typename T>
int item_bits(uint16_t* res, mlx_array arr) {
  static_assert(sizeof(T) == sizeof(uint16_t));
  try {
    const T value = mlx_array_get_(arr).item<T>();
    std::memcpy(res, &value, sizeof(value));
    return 0;
  } catch (const std::exception& e) {
    mlx_error(e.what());
    return 1;
  }
}

} // namespace

#ifndef HAS_FLOAT16
extern "C" const uint16_t* mlx_array_data_float16(const mlx_array arr) {
  return data_bits<mlx::core::float16_t>(arr);
}
extern "C" int mlx_array_item_float16(uint16_t* res, const mlx_array arr) {
  return item_bits<mlx::core::float16_t>(res, arr);
}
#endif

#ifndef HAS_BFLOAT16
extern "C" const uint16_t* mlx_array_data_bfloat16(const mlx_array arr) {
  return data_bits<mlx::core::bfloat16_t>(arr);
}
extern "C" int mlx_array_item_bfloat16(uint16_t* res, const mlx_array arr) {
  return item_bits<mlx::core::bfloat16_t>(res, arr);
}
#endif
