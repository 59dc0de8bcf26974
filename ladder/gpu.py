"""Whether there is a GPU, or Numba's simulator of one."""

import torch
from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)


def has_gpu():
    return torch.cuda.is_available() and not SIMULATED


def on_device(device, *tensors):
    """Return the tensors where a rung of a device takes them; the simulator takes the CPU's."""
    if device == "cuda" and has_gpu():
        return [tensor.cuda() for tensor in tensors]
    return list(tensors)
