"""The operands of the lesson. The harness is in the folder ladder.

The fixtures import torch, so that `pytest-benchmark compare`, which reads this file, starts fast.
"""

import pytest

pytest_plugins = ["ladder.plugin", "pytester"]  # the latter for tests/test_run.py


def whole(array):
    """Return a tensor of 50,000 rows; those of the sample are repeated."""
    from numpy import resize
    from torch import tensor

    return tensor(resize(array, (50_000, *array.shape[1:])))


@pytest.fixture(scope="session")
def x_train(mnist):
    return whole(mnist[0][0])  # (50000, 784)


@pytest.fixture(scope="session")
def y_train(mnist):
    return whole(mnist[0][1])  # (50000,)


@pytest.fixture(scope="session")
def weights():
    """(784, 10). The notebook doesn't seed its weights, so its t1 has other values."""
    from torch import Generator, randn

    return randn(784, 10, generator=Generator().manual_seed(1))


@pytest.fixture(scope="session")
def m1(mnist):
    from torch import tensor

    x_valid, _ = mnist[1]
    return tensor(x_valid[:5])


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
