"""The data and the products on which the rungs are tried."""

import sys
from functools import cache

import pytest

from ladder.mnist import load_mnist
from ladder.product import Product
from ladder.shape import FULL, SMALL
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
def dense():
    """A product without the zeros at the edges of every digit."""
    return Product.random("3x50x7")


@pytest.fixture(scope="session")
def small_product(m1, m2, t1):
    return Product(m1, m2, t1)


@pytest.fixture(scope="session")
def full_product(x_train, weights, tr):
    need_memory(50_000, 784, 10)
    return Product(x_train, weights, tr)


@pytest.fixture
def product(request, shape):
    """The `Product` of the shape "MxKxN" on which the test runs."""
    if fixture := {str(SMALL): "small_product", str(FULL): "full_product"}.get(shape):
        return request.getfixturevalue(fixture)
    need_memory(*map(int, shape.split("x")))
    return Product.random(shape)


@pytest.fixture(scope="module")
def patient_simulator():
    """The simulator's scheduler polls its threads; let these run more often in between."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
