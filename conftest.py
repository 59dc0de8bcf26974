"""The operands of the lesson, and the harness that pytest loads with them.

`pytest-benchmark compare` imports this file, too, and should not wait for torch: so the lesson
is imported where it is needed.
"""

import numpy as np
import pytest

pytest_plugins = ["ladder.plugin", "pytester"]


@pytest.fixture(scope="session")
def train(mnist):
    """x_train (50000, 784) and y_train (50000,) as tensors; the sample repeats its rows."""
    from torch import tensor

    return [tensor(np.resize(array, (50_000, *array.shape[1:]))) for array in mnist[0]]


@pytest.fixture(scope="session")
def x_train(train):
    return train[0]


@pytest.fixture(scope="session")
def y_train(train):
    return train[1]


@pytest.fixture(scope="session")
def weights():
    """(784, 10). The notebook's own are unseeded, so the values of its t1 are others."""
    import torch

    return torch.randn(784, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def m1(mnist):
    from torch import tensor

    x_valid, _ = mnist[1]
    return tensor(x_valid)[:5]


@pytest.fixture(scope="session")
def m2(weights):
    return weights


@pytest.fixture(scope="session")
def t1(m1, m2):
    """The reference: the three loops' product, (5, 10)."""
    from kernels import matmul_loops

    return matmul_loops(m1, m2)


@pytest.fixture(scope="session")
def tr(x_train, weights):
    """The reference for the full shape: the broadcast version's product, (50000, 10)."""
    from kernels import matmul_broadcast

    return matmul_broadcast(x_train, weights)
