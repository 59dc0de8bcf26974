"""The rungs on the CPU, one idea a file. They stand in the ladder in the order of these imports.

Two files help them: vectors has SIMD vectors for Numba, and registers says what the CPU has of them.

The lesson's full shape reads 157 MB for 0.78 GFLOP: what counts there is how fast a comes from
memory. Its small shape takes a few microseconds: what counts there is what surrounds the product.
"""

from beyond.cpu import numpy_peer, loops, tile, prefetch, blocks, few_rows, small_b, address
