"""The rungs on the GPU, one idea a file: from the course's kernel to the rate of the GPU's memory.

They stand in the ladder in the order of the imports below. The other files help them: addresses launches a kernel, resident launches one whose blocks stay; warp has
what threads do together, by the GPU's own instructions or by the simulator's stand-ins.

The full shape reads 157 MB for 0.78 GFLOP: memory is the limit. A kernel here takes addresses, and
a[i * k_size + k] is row i, column k of a. docs/gpu.md explains the words, and says what each kernel
reads and what was measured. Times and factors in docstrings are of an H200.
"""

from beyond.gpu import launch, coalesced, shared, tile, vector, reduce, copies, triton_peer
