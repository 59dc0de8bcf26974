"""The GPU's rungs beyond the course: each cell is stored once, and wrong operands are refused."""

import pytest
import torch

import ladder.gpu
import ladder.launch
from beyond.gpu import cell_kernel
from ladder.rungs import RUNGS

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("patient_simulator")]

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


@pytest.mark.skipif(not ladder.gpu.SIMULATED, reason="for Numba's simulator only")
@pytest.mark.parametrize("shape", ["19x12x11", "37x5x21"])
@pytest.mark.parametrize("rung", BY_ADDRESS)
def test_each_cell_is_stored_once(monkeypatch, rung, shape):
    """By one thread of all: what two of them store might differ, and takes twice the time."""
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    operands, shared_array = [], FakeCUDAShared.array

    def watched(tensor):
        operands.append(Watched(tensor.numpy().reshape(-1)))
        return operands[-1]

    monkeypatch.setattr(ladder.launch, "flat_array", watched)
    monkeypatch.setattr(FakeCUDAShared, "array", lambda *args: Watched(shared_array(*args)))
    m, k, n = map(int, shape.split("x"))
    RUNGS[rung].fn(torch.ones(m, k), torch.ones(k, n))
    assert [sorted(array.stored) for array in operands] == [[], [], list(range(m * n))]


A, B = torch.ones(2, 3), torch.ones(3, 4)


@pytest.mark.parametrize(
    "a, b, simulated, reason",
    [
        (A.double(), B.double(), True, "not float32"),
        (A, A, True, "not float32 tensors of shapes"),
        (A, B, False, "not on one GPU: cpu, cpu"),
    ],
    ids=["dtype", "shapes", "device"],
)
def test_what_an_address_does_not_tell(monkeypatch, a, b, simulated, reason):
    monkeypatch.setattr(ladder.launch, "SIMULATED", simulated)
    with pytest.raises(ValueError, match=reason):
        ladder.launch.launch(cell_kernel, a, b, 1, 1)
