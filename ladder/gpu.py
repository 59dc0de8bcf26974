"""What a rung, or its test, needs to reach a GPU or Numba's simulator of one."""

from contextlib import contextmanager

import torch
from numba import config, cuda

SIMULATED = bool(config.ENABLE_CUDASIM)


def has_gpu():
    return torch.cuda.is_available() and not SIMULATED


def why_not(rung):
    """Return why a GPU rung can't run here, neither on a GPU nor in the simulator, or ""."""
    by_torch = rung == "matmul_torch_cuda"
    if has_gpu():
        if not by_torch and not cuda.is_available():
            return "Numba finds no CUDA toolkit (libNVVM): install requirements-cuda.txt"
    elif by_torch:
        return "there is no GPU, and torch has no simulator of one"
    elif not SIMULATED:
        return "there is no GPU, and NUMBA_ENABLE_CUDASIM=0 forbids the simulator"
    return ""


def device_array(tensor):
    """Return ``tensor`` as what a numba.cuda kernel takes, without a copy.

    That is a view of a tensor on the GPU, or of one in memory for Numba's simulator.
    """
    return tensor.contiguous().numpy() if SIMULATED else cuda.as_cuda_array(tensor)


@contextmanager
def current_stream(tensor):
    """Make the GPU of ``tensor`` the current one; the value is torch's stream there, for Numba.

    The simulator has neither: 0 stands for its stream.
    """
    if SIMULATED:
        yield 0
    else:
        with torch.cuda.device(tensor.device):
            stream = torch.cuda.current_stream().cuda_stream
            yield cuda.external_stream(stream) if stream else 0
