#include "host_array.h"

#include <cstdlib>
#include <limits>
#include <new>

#include "mlx/allocator.h"

#include "mlx/c/private/mlx.h"

namespace {

namespace mx = mlx::core;

// MLX's CPU-only allocator keeps a buffer's size in the word before its data. Asks it whether this is so: other devices' allocators, and
// perhaps later versions, do otherwise.
bool size_word_before_data() {
  static const bool answer = [] {
    constexpr size_t probe = 4321;
    auto buffer = mx::allocator::malloc(probe);
    const auto* at = static_cast<const char*>(buffer.ptr());
    const bool found = static_cast<const char*>(buffer.raw_ptr()) == at + sizeof(size_t) &&
        *static_cast<const size_t*>(buffer.ptr()) == mx::allocator::allocator().size(buffer);
    mx::allocator::free(buffer);
    return found;
  }();
  return answer;
}

// An array whose buffer is a lone size word, and whose offset leads from there to `data`. The size it claims is larger than any output's,
// so that operations which weigh a buffer before they reuse it leave this one alone.
mx::array over_host_memory(void* data, mx::Shape shape, mx::Dtype dtype, void* payload, void (*dtor)(void*)) {
  auto* word = static_cast<size_t*>(std::malloc(sizeof(size_t)));
  if (!word) {
    throw std::bad_alloc();
  }
  *word = std::numeric_limits<size_t>::max() / 2;
  mx::array out(std::move(shape), dtype, nullptr, {});
  bool vector = out.ndim() == 0;
  for (const auto extent : out.shape()) {
    vector |= static_cast<size_t>(extent) == out.size();
  }
  mx::array::Flags flags{};
  flags.contiguous = true;
  flags.row_contiguous = true;
  flags.col_contiguous = vector;
  mx::allocator::Buffer buffer(word);
  const auto offset = static_cast<char*>(data) - static_cast<char*>(buffer.raw_ptr());
  out.set_data(buffer, out.size(), out.strides(), flags, offset, [payload, dtor](mx::allocator::Buffer buffer) {
    std::free(buffer.ptr());
    if (dtor) {
      dtor(payload);
    }
  });
  out.set_status(mx::array::Status::available);
  return out;
}

} // namespace

extern "C" mlx_array mlx_array_new_host(
    void* data,
    const int* shape,
    int dim,
    mlx_dtype dtype,
    void* payload,
    void (*dtor)(void*)) {
  const bool aligned = reinterpret_cast<uintptr_t>(data) % mlx_dtype_size(dtype) == 0;
  if (!aligned || !size_word_before_data()) {
    return mlx_array_new_data_managed_payload(data, shape, dim, dtype, payload, dtor);
  }
  try {
    return mlx_array_new_(over_host_memory(data, mx::Shape(shape, shape + dim), mlx_dtype_to_cpp(dtype), payload, dtor));
  } catch (const std::exception& e) {
    if (dtor) {
      dtor(payload);
    }
    mlx_error(e.what());
    return mlx_array_new_();
  }
}
