"""Whether there is a GPU, or Numba's simulator of one."""

from importlib.metadata import PackageNotFoundError, version

import torch
from numba import config
from packaging.version import Version

SIMULATED = bool(config.ENABLE_CUDASIM)


def has_gpu():
    return torch.cuda.is_available() and not SIMULATED


def versions_at_odds():
    """Return which installed versions can't compile for a GPU together, and what to do, or ""."""
    try:
        numba_cuda, numpy = version("numba-cuda"), version("numpy")
    except PackageNotFoundError:
        return ""
    if Version(numba_cuda) < Version("0.31") and Version(numpy) >= Version("2.5"):
        return f"numba-cuda {numba_cuda} doesn't work with numpy {numpy}: install 'numpy<2.5'"
    return ""


def on_device(device, *tensors):
    """Return the tensors where a rung of a device takes them; the simulator takes the CPU's."""
    if device == "cuda" and has_gpu():
        return [tensor.cuda() for tensor in tensors]
    return list(tensors)
