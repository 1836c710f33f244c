// MLX operations whose CPU evaluation is a function of the caller's.
#ifndef VLLM_MLX_CUSTOM_PRIMITIVE_H
#define VLLM_MLX_CUSTOM_PRIMITIVE_H

#include "mlx/c/array.h"
#include "mlx/c/stream.h"
#include "mlx/c/vector.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A row-major array as a kernel sees it, valid for the length of the call.
 * `data` is null only when `size` is 0. `shape` has `ndim` entries; `size` is their product. */
typedef struct mlx_custom_view_ {
  void* data;
  const int* shape;
  size_t ndim;
  size_t size;
  mlx_dtype dtype;
} mlx_custom_view;

/* What an output is to be. `alias` is -1, or the index of an input of as many bytes whose buffer the output may take over: when MLX
 * holds that buffer for nobody else, the kernel is called with equal `data` pointers; otherwise with distinct ones, the output's not
 * initialised. */
typedef struct mlx_custom_output_ {
  const int* shape;
  size_t ndim;
  mlx_dtype dtype;
  int alias;
} mlx_custom_output;

/* Computes all outputs. Called on the stream's thread, once per evaluation. Returns 0, or another number after writing at most
 * `capacity` bytes (NUL included) of message to `error`; the message then comes out of the evaluation that waits for the result.
 * Must not unwind and must not call back into MLX. */
typedef int (*mlx_custom_kernel)(
    void* ctx,
    const mlx_custom_view* inputs,
    size_t n_inputs,
    const mlx_custom_view* outputs,
    size_t n_outputs,
    char* error,
    size_t capacity);

/* Adds to the graph an operation named `name` (for error messages) that computes `outputs` from `inputs` by `kernel`, and sets `outs`
 * to its results. Inputs reach the kernel row-major: strided and broadcast ones are copied first. Evaluates on CPU streams only.
 *
 * Takes `ctx` over in every case: `drop(ctx)` is called exactly once, after the last call of the kernel, on whichever thread lets go of
 * it last. Returns 0, or 1 after calling MLX's error handler. */
int mlx_custom_cpu(
    mlx_vector_array* outs,
    const char* name,
    const mlx_vector_array inputs,
    const mlx_custom_output* outputs,
    size_t n_outputs,
    mlx_custom_kernel kernel,
    void* ctx,
    void (*drop)(void*),
    const mlx_stream stream);

/* What an array is, without evaluating it. */
typedef struct mlx_custom_identity_ {
  /* The same for all handles of one array, and of no other array while one of them lives. */
  size_t id;
  /* Its elements, row-major; null unless they are there already and lie so. Valid as long as a handle lives. */
  const void* data;
} mlx_custom_identity;

mlx_custom_identity mlx_custom_identify(const mlx_array array);

#ifdef __cplusplus
}
#endif

#endif
