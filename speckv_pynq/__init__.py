"""SpecKV: a compressed, tiered KV cache on FPGA kernels, or on the same kernels compiled natively."""
