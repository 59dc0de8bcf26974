"""Each rung is tried on operands that hypothesis draws; requirements-dev.txt brings it.

The same operands in each run; --hypothesis-profile=soak looks for new ones.
"""

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed: see requirements-dev.txt")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from ladder.gpu import has_gpu  # noqa: E402
from ladder.rungs import rung_names  # noqa: E402
from tests.operands import FAST, LAYOUTS, SLOW, check, check_gpu, named  # noqa: E402

FEW, MANY = 100, 50_000  # multiplications; few in Python's loops and in simulated threads


@st.composite
def operands(draw, most):
    """a and b, 0 to 70 in each dimension, for at most so many multiplications, in any layout.

    Values are of about 10**exponent; below 1e-38 they are subnormal.
    """
    sizes = []
    for _ in range(3):
        sizes.append(min(draw(st.integers(0, 70)), most))
        most //= max(1, sizes[-1])
    m, k, n = draw(st.permutations(sizes))
    exponent = draw(st.integers(-44, 30))
    other = draw(st.integers(-30, min(30, 30 - exponent)))  # the products are not too large
    layouts = draw(st.tuples(*[st.sampled_from([*LAYOUTS])] * 2))
    return named((m, k, n), layouts, (exponent, other), draw(st.integers(0, 2**32)))


@pytest.mark.parametrize("rung", SLOW)
@given(operands(FEW))
def test_slow_rung(rung, ab):
    check(rung, *ab)


@pytest.mark.parametrize("rung", FAST)
@given(operands(MANY))
def test_fast_rung(rung, ab):
    check(rung, *ab)


@pytest.mark.cuda
@pytest.mark.usefixtures("gpu_or_simulator")
@pytest.mark.parametrize("rung", rung_names("cuda"))
@settings(max_examples=30 if has_gpu() else 2)
@given(operands(MANY if has_gpu() else FEW))
def test_gpu_rung(rung, ab):
    check_gpu(rung, *ab)
