// Arrays over memory that MLX did not allocate.
#ifndef VLLM_MLX_HOST_ARRAY_H
#define VLLM_MLX_HOST_ARRAY_H

#include "mlx/c/array.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Like mlx_array_new_data_managed_payload (row-major `data`; `dtor(payload)` called once, on any thread, when MLX needs the memory no
 * more), but without a copy on MLX's CPU-only build too, which copies whatever that function is given. Copies still where MLX can't
 * use the memory in place: on CUDA, on Metal if `data` isn't page-aligned, and everywhere if it isn't aligned to the element's size.
 *
 * MLX may write into the memory once the graph holds the last handle of the array: let it be writable (a private mapping, say) or keep a
 * handle as long as operations on it are pending. */
mlx_array mlx_array_new_host(
    void* data,
    const int* shape,
    int dim,
    mlx_dtype dtype,
    void* payload,
    void (*dtor)(void*));

#ifdef __cplusplus
}
#endif

#endif
