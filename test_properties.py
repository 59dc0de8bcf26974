"""Properties that a product has whatever its operands: each rung is tried on drawn ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_fixtures import Product, has_gpu, skip_if_not_simulated
from rungs import RUNGS, SMALL

CPU_RUNGS = [name for name, rung in RUNGS.items() if rung.device == "cpu"]
GPU_RUNGS = [name for name, rung in RUNGS.items() if rung.device == "cuda"]
SMALLEST = torch.finfo(torch.float32).tiny
# Python steps and simulated threads are slow: fewer multiplications for these.
FEW, MANY = 100, 50_000


@st.composite
def shapes(draw, most):
    """(m, k, n), each from 0 to 70, with at most that many multiplications."""
    sizes = []
    for _ in range(3):
        size = draw(st.integers(0, 70))
        sizes.append(size if size <= most else most)
        most //= max(1, sizes[-1])
    return draw(st.permutations(sizes))


def laid_out(draw, rows, columns):
    """A random matrix: contiguous, transposed, with steps, expanded, or a slice of a larger one."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    layout = draw(st.sampled_from(range(6)))
    return [
        lambda: randn(rows, columns),
        lambda: randn(columns, rows).T,
        lambda: randn(2 * rows, 3 * columns)[::2, ::3],
        lambda: randn(1, columns).expand(rows, columns),
        lambda: randn(rows, 1).expand(rows, columns),
        lambda: randn(rows + 2, columns + 3)[1:-1, 2:-1],
    ][layout]()


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


def assert_within(bound, x, y):
    assert bool(((x - y).abs() <= bound).all())


def scales(fn, a, b):
    # By powers of two, which round nothing; but a layout of their own may sum differently.
    bound = Product.of(a, b).bound
    for x, y in (4.0, 0.5), (-1.0, 1.0), (1.0, -2.0):
        allowed = 2 * abs(x * y) * bound + SMALLEST
        assert_within(allowed, fn(x * a, y * b), x * y * fn(a, b))


def is_linear(fn, a, b):
    for left, right in ((a, b.flip(1)), (a.flip(0), b)):
        total = fn(a + left, b + right) - fn(a, b) - fn(left, right)
        rest = fn(a, right) + fn(left, b)
        size = (a.abs() + left.abs()).double() @ (b.abs() + right.abs()).double()
        bound = 4 * (a.shape[1] + 8) * (2**-24 * size + SMALLEST)
        assert_within(bound, total, rest)


def transposes(fn, a, b):
    Product.of(b.T, a.T).check(fn(b.T, a.T))
    assert_within(2 * Product.of(a, b).bound, fn(b.T, a.T).T, fn(a, b))


def keeps_what_is_multiplied_by_one(fn, a, b):
    assert fn(a, torch.eye(a.shape[1])).equal(a)
    assert fn(torch.eye(b.shape[0]), b).equal(b)


def is_zero_for_zeros(fn, a, b):
    assert not fn(torch.zeros_like(a), b).any()
    assert not fn(a, torch.zeros_like(b)).any()


def permutes_its_rows_with_those_of_a(fn, a, b):
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
    bound = 2 * Product.of(a, b).bound[order]
    assert_within(bound, fn(a[order], b), fn(a, b)[order])


def leaves_its_operands_alone(fn, a, b):
    before = a.clone(), b.clone()
    fn(a, b)
    assert a.equal(before[0]) and b.equal(before[1])


def returns_a_new_tensor(fn, a, b):
    c = fn(a, b)
    assert c.is_contiguous() and c.dtype == torch.float32 and not c.requires_grad
    before = c.clone()
    again = fn(a + 1, b)
    assert c.equal(before)
    stores = [x.untyped_storage().data_ptr() for x in (a, b, c, again) if x.numel()]
    assert len(stores) == len(set(stores))
    c.fill_(7)
    Product.of(a, b).check(fn(a, b))


PROPERTIES = [
    equals_the_float64_product,
    scales,
    is_linear,
    transposes,
    keeps_what_is_multiplied_by_one,
    is_zero_for_zeros,
    permutes_its_rows_with_those_of_a,
    leaves_its_operands_alone,
    returns_a_new_tensor,
]


@pytest.mark.parametrize("rung", CPU_RUNGS)
@given(data=st.data())
def test_property(rung, data):
    rung = RUNGS[rung]
    holds = data.draw(st.sampled_from(PROPERTIES))
    a, b = data.draw(operands(FEW if rung.shapes == (SMALL,) else MANY))
    holds(rung.fn, a, b)


@pytest.mark.cuda
@pytest.mark.usefixtures("patient_simulator")
@pytest.mark.parametrize("rung", GPU_RUNGS)
@settings(max_examples=settings().max_examples // 25)
@given(data=st.data())
def test_property_on_the_gpu(rung, data):
    skip_if_not_simulated(rung)

    def fn(a, b):
        if has_gpu():
            return RUNGS[rung].fn(a.cuda(), b.cuda()).cpu()
        return RUNGS[rung].fn(a, b)

    holds = data.draw(st.sampled_from(PROPERTIES))
    a, b = data.draw(operands(MANY if has_gpu() else FEW))
    holds(fn, a, b)
