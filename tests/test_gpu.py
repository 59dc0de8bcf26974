"""The GPU's rungs beyond the course: what the simulator and the compiler can show of them."""

import pytest
import torch

from beyond import launch
from beyond.gpu import cell_kernel
from ladder.gpu import SIMULATED
from ladder.rungs import RUNGS

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("gpu_or_simulator")]

BY_ADDRESS = [name for name, rung in RUNGS.items() if rung.fn.__module__ == "beyond.gpu"]


class Watched:
    """A 1-D array in the simulator: each index is within it, and those stored to are noted."""

    def __init__(self, array):
        self.array, self.stored = array, []

    def __getitem__(self, index):
        first, end = (index.start, index.stop) if isinstance(index, slice) else (index, index + 1)
        assert 0 <= first < end <= len(self.array)
        return self.array[index]

    def __setitem__(self, index, value):
        self[index]  # is there
        self.array[index] = value
        self.stored.append(index)


@pytest.mark.skipif(not SIMULATED, reason="for Numba's simulator only")
@pytest.mark.parametrize("rung", BY_ADDRESS)
def test_each_cell_is_stored_once(monkeypatch, rung):
    """By one thread of all: what two of them store might differ, and takes twice the time."""
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    operands, array, shared_array = [], torch.Tensor.numpy, FakeCUDAShared.array

    def watched(tensor):
        operands.append(Watched(array(tensor)))
        return operands[-1]

    monkeypatch.setattr(torch.Tensor, "numpy", watched)
    monkeypatch.setattr(FakeCUDAShared, "array", lambda *args: Watched(shared_array(*args)))
    for m, k, n in (9, 12, 11), (18, 5, 3):
        operands.clear()
        RUNGS[rung].fn(torch.ones(m, k), torch.ones(k, n))
        assert [sorted(array.stored) for array in operands] == [[], [], list(range(m * n))]


A, B = torch.ones(2, 3), torch.ones(3, 4)


@pytest.mark.parametrize("a, b, simulated", [
    (A.double(), B.double(), True), (A, B.double(), True), (A, A, True), (A, B, False),
])  # fmt: skip
def test_what_an_address_does_not_tell(monkeypatch, a, b, simulated):
    monkeypatch.setattr(launch, "SIMULATED", simulated)
    with pytest.raises(ValueError, match=r"takes float32 .* \(K, N\) on one GPU, not "):
        launch.launch(cell_kernel, a, b, 1, 1)


COMPILE = """
from types import SimpleNamespace
from numba import cuda, float32
from numba.cuda import dispatcher
import kernels
from beyond import gpu, launch
# A kernel's device functions are compiled for the current device; there is none.
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(8, 0))
for name, kernel in (vars(kernels) | vars(gpu)).items():
    if isinstance(kernel, dispatcher.CUDADispatcher) and name.endswith("_kernel"):
        takes = (float32[:, ::1],) * 3 if name == "matmul_kernel" else launch.ADDRESSES
        ptx, _ = cuda.compile_ptx(kernel.py_func, takes, cc=(8, 0))
        features = "__local_depot", ".f64", "ld.global.v4.f32", "cp.async.cg.shared.global"
        print(name, *(feature for feature in features if feature in ptx))
"""


def test_compiles(python):
    """In a process without the simulator: no sum is in memory, none is float64 beyond the course's,
    loads are wide and copies asynchronous where a rung says so."""
    status, output, errors = python("-c", COMPILE, NUMBA_ENABLE_CUDASIM="0")
    if "NvvmSupportError" in errors:
        pytest.skip("there is no libNVVM")
    assert (status, output.splitlines()) == (0, [
        "matmul_kernel .f64", "cell_kernel .f64", "coalesced_kernel", "shared_kernel",
        "tile_kernel", "vector_kernel ld.global.v4.f32", "reduce_kernel ld.global.v4.f32",
        "async_kernel cp.async.cg.shared.global",
    ]), errors  # fmt: skip
