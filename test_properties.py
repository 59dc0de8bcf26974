"""Properties that a product has whatever its operands: each rung is tried on drawn ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_fixtures import Product, has_gpu, skip_if_not_simulated
from rungs import RUNGS, SMALL

CPU_NAMES = [name for name, rung in RUNGS.items() if rung.device == "cpu"]
GPU_NAMES = [name for name, rung in RUNGS.items() if rung.device == "cuda"]
# Python steps and simulated threads are slow: fewer multiplications for these.
FEW, MANY = 100, 50_000


@st.composite
def shapes(draw, most):
    """(m, k, n), each from 0 to 70, with at most that many multiplications."""
    sizes = []
    for _ in range(3):
        sizes.append(min(draw(st.integers(0, 70)), most))
        most //= max(1, sizes[-1])
    return draw(st.permutations(sizes))


def laid_out(draw, rows, columns):
    """A random matrix: contiguous, transposed, with steps, expanded, or a slice of a larger one."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    layouts = {
        "contiguous": lambda: randn(rows, columns),
        "transposed": lambda: randn(columns, rows).T,
        "steps": lambda: randn(2 * rows, 3 * columns)[::2, ::3],
        "a row": lambda: randn(1, columns).expand(rows, columns),
        "a column": lambda: randn(rows, 1).expand(rows, columns),
        "a slice": lambda: randn(rows + 2, columns + 3)[1:-1, 2:-1],
    }
    return layouts[draw(st.sampled_from(list(layouts)))]()


@st.composite
def operands(draw, most):
    """a and b, of any layout; the values of a and of b may be tiny or huge, their products not."""
    m, k, n = draw(shapes(most))
    a, b = laid_out(draw, m, k), laid_out(draw, k, n)
    exponent = draw(st.integers(-44, 30))
    other = draw(st.integers(-30, 30).filter(lambda e: e + exponent <= 30))
    return scaled(a, exponent), scaled(b, other)


def scaled(x, exponent):
    """x * 10**exponent, in the same layout; below 1e-38 the numbers are subnormal."""
    storage = torch.empty(0).set_(x.untyped_storage())
    storage.copy_((storage.double() * 10.0**exponent).float())
    return x


def equals_the_float64_product(fn, a, b):
    Product.of(a, b).check(fn(a, b))


def keeps_what_is_multiplied_by_one(fn, a, b):
    assert fn(a, torch.eye(a.shape[1])).equal(a)
    assert fn(torch.eye(b.shape[0]), b).equal(b)


def leaves_its_operands_alone(fn, a, b):
    before = a.clone(), b.clone()
    fn(a, b)
    assert a.equal(before[0]) and b.equal(before[1])


def returns_a_new_tensor(fn, a, b):
    c = fn(a, b)
    before = c.clone()
    again = fn(a + 1, b)
    assert c.equal(before) and c.is_contiguous()
    stores = [x.untyped_storage().data_ptr() for x in (a, b, c, again) if x.numel()]
    assert len(stores) == len(set(stores))
    c.fill_(7)
    Product.of(a, b).check(fn(a, b))


PROPERTIES = st.sampled_from(
    [
        equals_the_float64_product,
        keeps_what_is_multiplied_by_one,
        leaves_its_operands_alone,
        returns_a_new_tensor,
    ]
)


@pytest.mark.parametrize("rung", CPU_NAMES)
@given(holds=PROPERTIES, data=st.data())
def test_property(rung, holds, data):
    few = RUNGS[rung].shapes == (SMALL,)
    holds(RUNGS[rung].fn, *data.draw(operands(FEW if few else MANY)))


@pytest.mark.cuda
@pytest.mark.usefixtures("patient_simulator")
@pytest.mark.parametrize("rung", GPU_NAMES)
@settings(max_examples=settings().max_examples // 25)
@given(holds=PROPERTIES, data=st.data())
def test_property_on_the_gpu(rung, holds, data):
    skip_if_not_simulated(rung)

    def fn(a, b):
        return RUNGS[rung].fn(a.cuda(), b.cuda()).cpu() if has_gpu() else RUNGS[rung].fn(a, b)

    holds(fn, *data.draw(operands(MANY if has_gpu() else FEW)))
