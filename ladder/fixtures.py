"""The data and the products on which the rungs are tried."""

import sys

import pytest

from ladder.gpu import SIMULATED, has_gpu, versions_at_odds
from ladder.product import Product
from ladder.rungs import RUNGS
from ladder.shape import FULL, SMALL, Shape
from ladder.timing import need_memory, time_rung, timed  # noqa: F401 (pytest finds fixtures here)


@pytest.fixture(scope="session")
def mnist(request):
    """``((x_train, y_train), (x_valid, y_valid), (x_test, y_test))`` as in the file."""
    session = request.config.pluginmanager.get_plugin("ladder-session")
    try:
        return session.load_data()
    except (OSError, ValueError) as error:
        path, why = session.data
        advice = f"{path} was {why}. {what_to_do(why)}, or run with --mnist=sample."
        pytest.exit(f"{error}\n{advice}", pytest.ExitCode.USAGE_ERROR)


def what_to_do(why):
    if why == "found there":
        return "Delete it, and the next run downloads it again"
    return "Give another file"


@pytest.fixture
def rung(request):
    """The `Rung` of the name in the test's id."""
    return RUNGS[request.param]


@pytest.fixture
def shape(request):
    """The `Shape` in the test's id."""
    return Shape.parse(request.param)


@pytest.fixture(scope="session")
def dense():
    """A product without the zeros at the edges of every digit."""
    return Product.random(Shape(3, 50, 7))


@pytest.fixture(scope="session")
def small_product(m1, m2, t1):
    return Product(m1, m2, t1)


@pytest.fixture(scope="session")
def full_product(x_train, weights, tr):
    need_memory(FULL)
    return Product(x_train, weights, tr)


@pytest.fixture
def product(request, shape):
    """The `Product` of the shape on which the test runs: the lesson's own, or a random one."""
    if shape == SMALL:
        return request.getfixturevalue("small_product")
    if shape == FULL:
        return request.getfixturevalue("full_product")
    need_memory(shape)
    return Product.random(shape)


@pytest.fixture(scope="module")
def gpu_or_simulator():
    """Skips what needs a GPU or Numba's simulator of one where there is neither.

    The simulator's scheduler polls its threads; here they run more often in between.
    """
    if not (has_gpu() or SIMULATED):
        pytest.skip("there is no GPU, and Numba was imported before its simulator could be chosen")
    if has_gpu() and (why := versions_at_odds()):
        pytest.skip(why)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
