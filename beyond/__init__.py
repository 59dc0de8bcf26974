"""The rungs beyond the course. They stand in the ladder in the order of these imports."""

import kernels
from beyond import cpu, microkernel, few_rows
from beyond.gpu import launch, coalesced, shared, tile, vector, reduce, copies, triton_peer
