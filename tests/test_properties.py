"""What holds for a product whatever its operands: each rung is tried on drawn ones."""

import pytest
import torch
from bench_fixtures import Product, has_gpu, skip_if_not_simulated
from hypothesis import given, settings
from hypothesis import strategies as st
from rungs import RUNGS, SMALL

CPU_NAMES = [name for name, rung in RUNGS.items() if rung.device == "cpu"]
GPU_NAMES = [name for name, rung in RUNGS.items() if rung.device == "cuda"]
# Python steps and simulated threads are slow: fewer multiplications for these.
FEW, MANY = 100, 50_000

LAYOUTS = [
    lambda x: x,
    lambda x: x.T.contiguous().T,
    lambda x: x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
    lambda x: x[:1].expand(x.shape),
    lambda x: x[:, :1].expand(x.shape),
    lambda x: torch.nn.functional.pad(x, (2, 1, 1, 1))[1:-1, 2:-1],
]


@st.composite
def matrices(draw, rows, columns, exponent):
    """In any layout, with values of about 10**exponent; below 1e-38 they are subnormal."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(rows, columns, generator=generator).double() * 10.0**exponent
    return draw(st.sampled_from(LAYOUTS))(x.float())


@st.composite
def operands(draw, most):
    """a and b, 0 to 70 in each dimension, for at most so many multiplications."""
    sizes = []
    for _ in range(3):
        sizes.append(min(draw(st.integers(0, 70)), most))
        most //= max(1, sizes[-1])
    m, k, n = draw(st.permutations(sizes))
    exponent = draw(st.integers(-44, 30))
    other = draw(st.integers(-30, min(30, 30 - exponent)))  # the products are not too large
    return draw(matrices(m, k, exponent)), draw(matrices(k, n, other))


def check(fn, a, b):
    """fn(a, b) is the product, and a new tensor: no operand, nor what another call returns."""
    operands_before = a.clone(), b.clone()
    tensors = a, b, fn(a, b)
    before = *operands_before, tensors[2].clone()
    another = fn(a + 1, b)
    assert all(map(torch.equal, tensors, before)) and another.is_contiguous()
    stores = [x.untyped_storage().data_ptr() for x in (*tensors, another) if x.numel()]
    assert len(stores) == len(set(stores))
    another.fill_(7)
    Product.of(a, b).check(fn(a, b))
    m, k = a.shape
    if m:  # each float comes through a multiplication by 1, also a subnormal one
        assert fn(torch.eye(k), b).equal(b) and fn(a, torch.eye(k)).equal(a)


@pytest.mark.parametrize("rung", CPU_NAMES)
@given(data=st.data())
def test_property(rung, data):
    few = RUNGS[rung].shapes == (SMALL,)
    check(RUNGS[rung].fn, *data.draw(operands(FEW if few else MANY)))


@pytest.mark.cuda
@pytest.mark.usefixtures("patient_simulator")
@pytest.mark.parametrize("rung", GPU_NAMES)
@settings(max_examples=settings().max_examples // 25)
@given(data=st.data())
def test_property_on_the_gpu(rung, data):
    skip_if_not_simulated(rung)

    def fn(a, b):
        return RUNGS[rung].fn(a.cuda(), b.cuda()).cpu() if has_gpu() else RUNGS[rung].fn(a, b)

    check(fn, *data.draw(operands(MANY if has_gpu() else FEW)))
