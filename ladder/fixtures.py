"""The data and the products on which the rungs are tried."""

import sys
from functools import cache

import pytest

from ladder.gpu import SIMULATED, has_gpu
from ladder.mnist import load_mnist
from ladder.product import Product, memory_of
from ladder.rungs import FULL, SMALL
from ladder.timing import need_memory, time_rung, timed  # noqa: F401

load_once = cache(load_mnist)


@pytest.fixture(scope="session")
def mnist(request):
    """``((x_train, y_train), (x_valid, y_valid), (x_test, y_test))`` as in the file."""
    path, why = request.config.getoption("mnist")
    try:
        return load_once(path)
    except (OSError, ValueError) as error:
        advice = f"{path} was {why}. Give another file, or run with --mnist=sample."
        pytest.exit(f"{error}\n{advice}", pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def whole_mnist(mnist):
    """Whether this is the whole data set, on which all of the course's values hold."""
    return [len(x) for x, y in mnist] == [50_000, 10_000, 10_000]


@pytest.fixture(scope="session")
def dense():
    """A product without the zeros at the edges of every digit."""
    return Product.random("3x50x7")


@pytest.fixture(scope="session")
def small_product(m1, m2, t1):
    return Product(m1, m2, t1)


@pytest.fixture(scope="session")
def full_product(x_train, weights, tr):
    need_memory(memory_of(50_000, 784, 10))
    return Product(x_train, weights, tr)


@pytest.fixture
def product(request, shape):
    """The `Product` of the shape "MxKxN" on which the test runs."""
    if fixture := {SMALL: "small_product", FULL: "full_product"}.get(shape):
        return request.getfixturevalue(fixture)
    need_memory(memory_of(*map(int, shape.split("x"))))
    return Product.random(shape)


@pytest.fixture(scope="module")
def gpu():
    """A GPU, or the simulator, whose scheduler polls its threads: these run more often meanwhile."""
    if not (has_gpu() or SIMULATED):
        pytest.skip("there is no GPU, and NUMBA_ENABLE_CUDASIM=0 is set")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
