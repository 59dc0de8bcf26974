"""Whether there is a GPU, or Numba's simulator of one, and why a rung can't run on it."""

import os
from importlib.util import find_spec

import torch
from numba import config, cuda

try:
    from cuda import core  # comes with numba-cuda, not with the numba.cuda inside Numba
except ImportError:
    core = None

SIMULATED = bool(config.ENABLE_CUDASIM)


def has_gpu():
    return torch.cuda.is_available() and not SIMULATED


def why_not(rung):
    """Return why a GPU rung can't run here, neither on a GPU nor in a simulator, or ""."""
    if rung == "matmul_torch_cuda":
        return "" if has_gpu() else "there is no GPU, and torch has no simulator of one"
    if rung == "matmul_triton":
        if not find_spec("triton"):
            return "Triton is not installed: torch's CUDA builds for Linux bring it"
        if not has_gpu() and os.environ.get("TRITON_INTERPRET") != "1":
            return "there is no GPU, and TRITON_INTERPRET=1 is not set"
        return ""
    if not has_gpu():
        return "" if SIMULATED else "there is no GPU, and NUMBA_ENABLE_CUDASIM=0 is set"
    if rung != "matmul_cuda" and not (core and "numba_cuda" in cuda.__file__):
        return "Numba's own numba.cuda can't launch by addresses: install requirements-cuda.txt"
    if not cuda.is_available():
        return "Numba finds no CUDA toolkit (libNVVM): install requirements-cuda.txt"
    return ""
