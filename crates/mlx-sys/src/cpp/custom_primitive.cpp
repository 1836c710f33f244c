#include "custom_primitive.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

#include "mlx/c/private/mlx.h"

namespace {

namespace mx = mlx::core;

constexpr size_t kErrorCapacity = 512;

// What every pending call of one operation shares. MLX drops the primitive as soon as its evaluation is scheduled, before the kernel
// has run, so the kernel's context is held by the scheduled task too.
struct Operation {
  std::string name;
  mlx_custom_kernel kernel;
  void* ctx;
  void (*drop)(void*);
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;
  std::vector<int> aliases;

  Operation(const char* name, mlx_custom_kernel kernel, void* ctx, void (*drop)(void*))
      : name(name ? name : "custom"), kernel(kernel), ctx(ctx), drop(drop) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  ~Operation() {
    if (drop) {
      drop(ctx);
    }
  }
};

// Bytes of outputs that are allocated and not computed yet. Outputs are allocated when their operation is scheduled, and a CPU stream
// computes long after: without a bound the scheduling thread runs many layers ahead, with the results of all of them in memory.
// (MLX's own bound, its memory limit, makes that thread spin instead of sleep.)
class Backlog {
 public:
  // Waits until `bytes` fit. Not for ever: the stream may wait for another one that this very thread has yet to feed.
  void enter(size_t bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return bytes_ == 0 || bytes_ + bytes <= kLimit; });
    bytes_ += bytes;
  }

  void leave(size_t bytes) {
    {
      std::lock_guard lock(mutex_);
      bytes_ -= bytes;
    }
    changed_.notify_one();
  }

 private:
  static constexpr size_t kLimit = 8 << 20;
  static constexpr std::chrono::seconds kPatience{1};

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t bytes_ = 0;
};

Backlog& backlog() {
  static Backlog backlog;
  return backlog;
}

// Copies a strided array of `Item`s to row-major order. Leading axes are walked by an odometer, the last one by a plain loop.
template <typename Item>
void copy_strided(const Item* from, Item* to, const mx::Shape& shape, const mx::Strides& strides) {
  const int last = static_cast<int>(shape.size()) - 1;
  const int64_t row = shape[last];
  const int64_t step = strides[last];
  mx::Shape position(shape.size(), 0);
  while (true) {
    if (step == 1) {
      std::memcpy(to, from, row * sizeof(Item));
    } else {
      for (int64_t i = 0; i < row; ++i) {
        to[i] = from[i * step];
      }
    }
    to += row;
    int axis = last - 1;
    for (; axis >= 0; --axis) {
      from += strides[axis];
      if (++position[axis] < shape[axis]) {
        break;
      }
      from -= strides[axis] * static_cast<int64_t>(shape[axis]);
      position[axis] = 0;
    }
    if (axis < 0) {
      return;
    }
  }
}

// A non-contiguous input and the buffer that its row-major copy goes to, done on the stream's thread.
struct Gather {
  const void* from;
  void* to;
  mx::Strides strides;
  size_t input;
};

struct Call {
  std::shared_ptr<Operation> operation;
  std::vector<mx::Shape> input_shapes;
  std::vector<mlx_custom_view> inputs;
  std::vector<mlx_custom_view> outputs;
  std::vector<Gather> gathers;
  size_t pending_bytes = 0;

  Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  // Also when the stream drops its tasks after an error.
  ~Call() {
    backlog().leave(pending_bytes);
  }

  void run() {
    for (auto& gather : gathers) {
      const auto& shape = input_shapes[gather.input];
      switch (mlx_dtype_to_cpp(inputs[gather.input].dtype).size()) {
        case 1:
          copy_strided(static_cast<const uint8_t*>(gather.from), static_cast<uint8_t*>(gather.to), shape, gather.strides);
          break;
        case 2:
          copy_strided(static_cast<const uint16_t*>(gather.from), static_cast<uint16_t*>(gather.to), shape, gather.strides);
          break;
        case 4:
          copy_strided(static_cast<const uint32_t*>(gather.from), static_cast<uint32_t*>(gather.to), shape, gather.strides);
          break;
        default:
          copy_strided(static_cast<const uint64_t*>(gather.from), static_cast<uint64_t*>(gather.to), shape, gather.strides);
      }
    }
    char error[kErrorCapacity];
    error[0] = '\0';
    const int code = operation->kernel(
        operation->ctx, inputs.data(), inputs.size(), outputs.data(), outputs.size(), error, sizeof(error));
    if (code != 0) {
      error[kErrorCapacity - 1] = '\0';
      // The stream's thread keeps this as the stream's error, and the event that the evaluation waits for hands it on.
      throw std::runtime_error(
          "[" + operation->name + "] " + (error[0] ? std::string(error) : "kernel failed with code " + std::to_string(code)));
    }
  }
};

mlx_custom_view view_of(mx::array& a, const mx::Shape& shape) {
  return mlx_custom_view{
      a.size() == 0 ? nullptr : a.data<void>(), shape.data(), shape.size(), a.size(), mlx_dtype_to_c(a.dtype())};
}

class CustomCpu : public mx::Primitive {
 public:
  CustomCpu(mx::Stream stream, std::shared_ptr<Operation> operation)
      : mx::Primitive(stream), operation_(std::move(operation)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto call = std::make_shared<Call>();
    call->operation = operation_;
    size_t bytes = 0;
    for (const auto& out : outputs) {
      bytes += out.nbytes();
    }
    backlog().enter(bytes);
    call->pending_bytes = bytes;
    call->input_shapes.reserve(inputs.size());
    call->inputs.reserve(inputs.size());
    call->outputs.reserve(outputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto& in = inputs[i];
      const auto& shape = call->input_shapes.emplace_back(in.shape());
      if (in.flags().row_contiguous || in.size() == 0) {
        // A second handle, since views take theirs by mutable reference; gone before anybody asks who may donate.
        auto handle = in;
        call->inputs.push_back(view_of(handle, shape));
      } else {
        mx::array copy(in.shape(), in.dtype(), nullptr, {});
        copy.set_data(mx::allocator::malloc(copy.nbytes()));
        call->gathers.push_back({in.data<void>(), copy.data<void>(), in.strides(), i});
        call->inputs.push_back(view_of(copy, shape));
        encoder.add_temporary(std::move(copy));
      }
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      auto& out = outputs[i];
      const int alias = operation_->aliases[i];
      if (alias < 0 || !take_over(inputs[alias], out)) {
        out.set_data(mx::allocator::malloc(out.nbytes()));
      }
      call->outputs.push_back(view_of(out, operation_->shapes[i]));
    }
    encoder.dispatch([call = std::move(call)]() { call->run(); });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error(
        "[" + operation_->name + "] is a CPU operation and was given a GPU stream; evaluate it on a CPU stream.");
  }

  const char* name() const override {
    return operation_->name.c_str();
  }

  // Two operations of one name may have different contexts.
  bool is_equivalent(const mx::Primitive&) const override {
    return false;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>&) override {
    return operation_->shapes;
  }

 private:
  // Lets `out` have the buffer of `in` if nobody else holds it and nothing would be kept alive beyond `out`'s own size.
  static bool take_over(const mx::array& in, mx::array& out) {
    if (out.size() == 0 || !in.flags().row_contiguous || in.nbytes() != out.nbytes() || in.itemsize() != out.itemsize() ||
        in.offset() != 0 || !in.is_donatable() || in.buffer_size() > in.nbytes() + kSlack) {
      return false;
    }
    // An array fresh from its constructor carries row-major strides. A vector is column-major too.
    const auto& shape = out.shape();
    const bool vector = std::any_of(
        shape.begin(), shape.end(), [&](auto extent) { return static_cast<size_t>(extent) == out.size(); });
    mx::array::Flags flags{};
    flags.contiguous = true;
    flags.row_contiguous = true;
    flags.col_contiguous = vector || shape.empty();
    out.copy_shared_buffer(in, out.strides(), flags, out.size());
    return true;
  }

  // What MLX's allocator may round a buffer up by.
  static constexpr size_t kSlack = 16384;

  std::shared_ptr<Operation> operation_;
};

void check(const Operation& operation, const std::vector<mx::array>& inputs, const mx::Stream& stream) {
  if (stream.device != mx::Device::cpu) {
    throw std::invalid_argument("[" + operation.name + "] is a CPU operation and was given a GPU stream.");
  }
  for (size_t i = 0; i < operation.aliases.size(); ++i) {
    const int alias = operation.aliases[i];
    if (alias >= static_cast<int>(inputs.size())) {
      throw std::invalid_argument(
          "[" + operation.name + "] output " + std::to_string(i) + " aliases input " + std::to_string(alias) + " of " +
          std::to_string(inputs.size()) + ".");
    }
  }
}

} // namespace

extern "C" int mlx_custom_cpu(
    mlx_vector_array* outs,
    const char* name,
    const mlx_vector_array inputs,
    const mlx_custom_output* outputs,
    size_t n_outputs,
    mlx_custom_kernel kernel,
    void* ctx,
    void (*drop)(void*),
    const mlx_stream stream) {
  // From here on the context has one owner, whatever throws.
  std::shared_ptr<Operation> operation;
  try {
    operation = std::make_shared<Operation>(name, kernel, ctx, drop);
  } catch (const std::exception& e) {
    if (drop) {
      drop(ctx);
    }
    mlx_error(e.what());
    return 1;
  }
  try {
    if (n_outputs == 0) {
      throw std::invalid_argument("[" + operation->name + "] has no outputs.");
    }
    for (size_t i = 0; i < n_outputs; ++i) {
      mx::Shape shape(outputs[i].shape, outputs[i].shape + outputs[i].ndim);
      for (const auto extent : shape) {
        if (extent < 0) {
          throw std::invalid_argument("[" + operation->name + "] output " + std::to_string(i) + " has a negative extent.");
        }
      }
      operation->shapes.push_back(std::move(shape));
      operation->dtypes.push_back(mlx_dtype_to_cpp(outputs[i].dtype));
      operation->aliases.push_back(outputs[i].alias);
    }
    const auto& stream_ = mlx_stream_get_(stream);
    const auto& inputs_ = mlx_vector_array_get_(inputs);
    check(*operation, inputs_, stream_);
    auto primitive = std::make_shared<CustomCpu>(stream_, operation);
    mlx_vector_array_set_(*outs, mx::array::make_arrays(operation->shapes, operation->dtypes, primitive, inputs_));
    return 0;
  } catch (const std::exception& e) {
    mlx_error(e.what());
    return 1;
  }
}

extern "C" mlx_custom_identity mlx_custom_identify(const mlx_array array) {
  auto handle = mlx_array_get_(array);
  // Only an evaluated array knows how its elements lie.
  const bool there = handle.is_available() && handle.size() > 0 && handle.flags().row_contiguous;
  return {handle.id(), there ? handle.data<void>() : nullptr};
}
