"""Whether there is a GPU, or Numba's simulator of one."""

import torch
from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)


def has_gpu():
    return torch.cuda.is_available() and not SIMULATED


def on_gpu(*tensors):
    """Return the tensors on the GPU, or as they are for the simulator."""
    return [x.cuda() if has_gpu() else x for x in tensors]
