"""From graph to LLVM IR: loop nests for every op, kernels for the ones that matter, one module for each network."""
