"""The kernels: each computes one op, or one part of it, over run-time sizes."""
