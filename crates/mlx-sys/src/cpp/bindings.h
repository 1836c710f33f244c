// All that src/bindings.rs is generated from (`cargo xtask bindings`).
#include "custom_primitive.h"
#include "host_array.h"
#include "mlx/c/mlx.h"
