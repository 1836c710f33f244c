//! 16-bit floats, whose accessors mlx-c has on some targets only.

use mlx_sys::*;

#[test]
fn bits_of_16_bit_floats_are_readable() {
    // (name, dtype, bits of 1.0, bits of -2.5)
    let cases =
        [("float16", mlx_dtype__MLX_FLOAT16, 0x3c00, 0xc100), ("bfloat16", mlx_dtype__MLX_BFLOAT16, 0x3f80, 0xc020)];
    for (name, dtype, one, other) in cases {
        // SAFETY: handles are made, evaluated before they are read, and freed here.
        unsafe {
            let s = mlx_default_cpu_stream_new();
            let values = [1.0f32, -2.5];
            let wide = mlx_array_new_data(values.as_ptr().cast(), [2].as_ptr(), 1, mlx_dtype__MLX_FLOAT32);
            let mut a = mlx_array_new();
            assert_eq!(mlx_astype(&mut a, wide, dtype, s), 0, "{name}");
            assert_eq!(mlx_array_eval(a), 0, "{name}");
            let mut last = mlx_array_new();
            assert_eq!(mlx_slice(&mut last, a, [1].as_ptr(), 1, [2].as_ptr(), 1, [1].as_ptr(), 1, s), 0, "{name}");
            let (data, item) = if dtype == mlx_dtype__MLX_FLOAT16 {
                let (data, mut item) = (mlx_array_data_float16(a), float16_t::default());
                assert_eq!(mlx_array_item_float16(&mut item, last), 0, "{name}");
                ([(*data).0, (*data.add(1)).0], item.0)
            } else {
                let (data, mut item) = (mlx_array_data_bfloat16(a), bfloat16_t::default());
                assert_eq!(mlx_array_item_bfloat16(&mut item, last), 0, "{name}");
                ([*data, *data.add(1)], item)
            };
            assert_eq!((data, item), ([one, other], other), "{name}");
            mlx_array_free(last);
            mlx_array_free(a);
            mlx_array_free(wide);
            mlx_stream_free(s);
        }
    }
}
