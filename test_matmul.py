"""Matrix multiplication: each rung is proved against t1, tr and a float64 product, then timed."""

import ctypes
import math
import mmap
import random
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import numba
import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from fastcore.test import test_eq as eq
from numba import njit
from numba.core.registry import CPUDispatcher

import kernels
from conftest import ODD_SHAPES, Product, needs_fork, quick_switches, random_product
from kernels import FULL, LANES, RUNGS, SMALL, TILE_COLUMNS, dot, forked, frobenius

CPU_RUNGS = [rung for rung in RUNGS.values() if rung.device == "cpu"]
FULL_RUNGS = [rung.name for rung in CPU_RUNGS if FULL in rung.shapes]


@pytest.mark.parametrize(
    "rung, shape", [(rung.name, shape) for rung in CPU_RUNGS for shape in rung.shapes]
)
def test_rung(time_rung, rung, shape, product):
    time_rung(f"matmul {shape}", rung, product)


# ---- The limit of the machine, beside the rungs, as it changes with what else runs -----

READS = {
    "torch.max": (torch.max, lambda x: x.max()),
    "torch.sum": (torch.sum, lambda x: x.sum(dtype="f8")),
    "numpy @ vector": (
        lambda x: x.numpy() @ np.ones(784, "f4"),
        lambda x: x.sum(axis=1, dtype="f8"),
    ),
}


@pytest.mark.parametrize("way", READS)
def test_read_limit(timed, way, x_train):
    def check(result):
        expected = np.asarray(total(x_train.numpy()), "f8")
        close(np.asarray(result, "f8"), expected, eps=1e-3 * expected.max())

    read, total = READS[way]
    info = {"limit": "read", "device": "cpu", "bytes": x_train.nbytes}
    timed("limit", check, read, x_train, **info)


HALVES = torch.full((1024, 1024), 0.5)
STEPS, THREADS = 200_000, numba.get_num_threads()
MULTIPLY_ADDS = {  # the function, its arguments, float32 operations, each of its results
    "torch.matmul": (torch.matmul, (HALVES, HALVES), 2 * 1024**3, 256),
    "numpy @": (np.matmul, (HALVES.numpy(), HALVES.numpy()), 2 * 1024**3, 256),
    "registers": (
        kernels.multiply_add,
        (STEPS, THREADS),
        24 * LANES * STEPS * THREADS,
        12 * LANES,
    ),
}


@pytest.mark.parametrize("way", MULTIPLY_ADDS)
def test_multiply_add_limit(timed, way):
    kernels.multiply_add(1, 1)  # compiles

    def check(result):
        eq(np.unique(result).tolist(), [expected])

    fn, args, flops, expected = MULTIPLY_ADDS[way]
    timed("limit", check, fn, *args, limit="flops", device="cpu", flops=flops)


# ---- The last rungs in more sizes, and the proof of all of them --------------------


@pytest.fixture(scope="module")
def more_rows(request, full_product):
    """The product of so many rows; made once for all rungs, as the last takes 1.6 GB."""
    return full_product.rows(request.param)


@pytest.mark.parametrize(
    "more_rows", [5, 50, 500, 5_000, 50_000, 500_000], indirect=True
)
@pytest.mark.parametrize(
    "rung", ["matmul_torch", "matmul_numpy", "matmul_numba_address"]
)
def test_rows(time_rung, rung, more_rows):
    time_rung("rows", rung, more_rows)


@pytest.mark.parametrize("odd", ODD_SHAPES, indirect=True)
@pytest.mark.parametrize("rung", [rung.name for rung in CPU_RUNGS])
def test_odd_shapes(rung, odd):
    odd.check(RUNGS[rung].fn(odd.a, odd.b))


@pytest.mark.parametrize("rung", [rung.name for rung in CPU_RUNGS])
def test_strided_operands(rung, odd_strided):
    odd_strided.check(RUNGS[rung].fn(odd_strided.a, odd_strided.b))


@pytest.mark.parametrize("shape", [(3, 50, 7), (301, 1030, 11), (20, 33, 150)])
@pytest.mark.parametrize("rung", FULL_RUNGS)
def test_stale_results(rung, shape):
    """Strided operands of sizes that no rung is timed with, of which one changes between two calls."""
    dense = random_product(shape)
    product = Product.of(
        dense.a.T.contiguous().T, dense.b.repeat_interleave(2, 1)[:, ::2]
    )
    c = RUNGS[rung].fn(product.a, product.b)
    product.b.neg_()
    negative = RUNGS[rung].fn(product.a, product.b)
    product.check(c)
    product.check(-negative)


@pytest.mark.parametrize("rung", FULL_RUNGS)
def test_calls_from_several_threads(rung):
    """Each thread gets the products of its own operands, though all have the same shape."""
    if rung.startswith("matmul_numba"):
        kernels.matmul_numba_parallel(*ONES)
        if numba.threading_layer() == "workqueue":
            pytest.skip("Numba's workqueue ends a process in which two threads call it")
    one = random_product((6, 40, 10))
    products = [one, Product.of(-one.a, one.b), Product.of(one.a, 2 * one.b)]

    def right(product):
        results = [RUNGS[rung].fn(product.a, product.b) for _ in range(100)]
        return (torch.stack(results) - product.exact).abs() <= product.bound

    with quick_switches(), ThreadPoolExecutor(len(products)) as pool:
        for cells in pool.map(right, products):
            eq((cells.shape, cells.all().item()), ((100, 6, 10), True))


def settings():
    """What a rung could change for all that comes after it."""
    return (
        torch.get_num_threads(),
        numba.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),
        (torch.tensor(1e-40) * 1).item(),  # 0 if subnormals are flushed
    )


def generators():
    name, state, *position = np.random.get_state()
    return (
        torch.get_rng_state().numpy().tobytes(),
        (state.tobytes(), *position),
        random.getstate(),
        kernels.rnd_state,
    )


SETTINGS = settings()  # before any rung is called


@pytest.mark.parametrize("rung", [rung.name for rung in CPU_RUNGS])
def test_leaves_settings_as_they_are(rung, dense):
    torch.rand(1), np.random.rand(), random.random()  # a seed set again would be seen
    before = generators()
    RUNGS[rung].fn(dense.a, dense.b)
    if rung in FULL_RUNGS:  # with all of its threads
        RUNGS[rung].fn(torch.ones(101, 1000), torch.ones(1000, 10))
    assert generators() == before
    eq(settings(), SETTINGS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rung", [rung.name for rung in CPU_RUNGS])
def test_nan_and_inf_come_through(rung, value):
    """In a row of a, and in a column of b, past the tiles' last whole vector and within it."""
    product = random_product((7, 19, 6))
    for k in 3, 18:
        a, b = product.a.clone(), product.b.clone()
        a[5, k] = b[k, 1] = value
        expected = torch.matmul(a, b)
        with np.errstate(invalid="ignore"):
            c = RUNGS[rung].fn(a, b)
        eq(c.isnan().tolist(), expected.isnan().tolist())
        eq(c.isposinf().tolist(), expected.isposinf().tolist())
        eq(c.isneginf().tolist(), expected.isneginf().tolist())
        close(c[:5, 2:], product.exact[:5, 2:].float(), eps=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_gradients():
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(*[ONES[0]] * 2)
        with pytest.raises(ValueError, match="a records gradients"):
            kernels.matmul_numba_address(dual, ONES[1])


@pytest.mark.parametrize("default", [torch.float16, torch.float64])
@pytest.mark.parametrize("rung", [rung.name for rung in CPU_RUNGS])
def test_another_default_dtype_or_device(rung, default, dense):
    """The result's memory is the operands' kind, whatever torch makes by default."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        with torch.device("meta"):
            c = RUNGS[rung].fn(dense.a, dense.b)
    finally:
        torch.set_default_dtype(before)
    dense.check(c)


@needs_fork
def test_reads_nothing_past_its_operands(monkeypatch):
    """In a child process, in one thread, as a fork leaves the others behind."""
    for name in "_tiles", "_prefetched_tiles_parallel", "_at_addresses_parallel":
        parallel = getattr(kernels, name)
        flags = parallel.targetoptions.get("fastmath", False)
        monkeypatch.setattr(kernels, name, njit(fastmath=flags)(parallel.py_func))
    kernels.matmul_numba_address(*ONES)  # what the child compiles is lost with it
    eq(forked(products_of_guarded_operands, 300), 496)


def products_of_guarded_operands():
    products = [
        (kernels.matmul_numba_address, m, k, n)
        for m in (1, 5, 6, 15, 16, 19, 21)
        for k in (1, 2, 15, 16, 17, 33, 784)
        for n in (1, 2, 5, 9, 10, 15, 16, 17, 33, 100)
    ] + [
        (rung, m, k, n)
        for rung in (kernels.matmul_numba_tile, kernels.matmul_numba_prefetch)
        for m, k, n in ((4, 17, 6), (9, 16, 5), (20, 50, 3))
    ]
    for rung, m, k, n in products:
        c = rung(guarded(m, k), guarded(k, n))
        assert c.shape == (m, n) and (c == k).all(), (rung, m, k, n)
    return len(products)


def guarded(rows, columns):
    """Return ones in front of memory that may not be read."""
    size = 4 * rows * columns
    readable = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, readable + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = ctypes.c_void_p(address + readable)
    eq(ctypes.CDLL(None).mprotect(end, mmap.PAGESIZE, 0), 0)
    array = np.frombuffer(memory, "f4", rows * columns, readable - size)
    array[:] = 1
    return torch.from_numpy(array.reshape(rows, columns))


# What Numba compiles, whether it shares the work out to threads, and the liberties it may take.
COMPILED = {
    "_rand_loop": (False, set()),
    "_rand_jump": (False, set()),
    "dot": (False, set()),
    "_multiply_add": (True, {"contract"}),
    "_loops": (False, set()),
    "_dots": (False, kernels.ANY_ORDER),
    "_dot32": (False, kernels.ANY_ORDER),
    "_dots_parallel": (True, kernels.ANY_ORDER),
    "_tiles": (True, kernels.ANY_ORDER),
    "_prefetched_tile": (False, set()),
    "_prefetched_tiles": (False, set()),
    "_prefetched_tiles_parallel": (True, set()),
    "_rest": (False, kernels.ANY_ORDER),
    "padded_transpose": (False, set()),
    "_few_rows": (False, set()),
    "_at_addresses": (False, set()),
    "_at_addresses_parallel": (False, set()),
}


def test_what_is_compiled_and_how():
    """Not one may assume that there is no NaN: it might still come through, but by luck."""
    options = {
        name: value.targetoptions
        for name, value in vars(kernels).items()
        if isinstance(value, CPUDispatcher)
    }
    compiled = {
        name: (option.get("parallel", False), option.get("fastmath", set()))
        for name, option in options.items()
    }
    eq({name: compiled.get(name) for name in COMPILED}, COMPILED)
    for _, fastmath in compiled.values():
        assert isinstance(fastmath, set) and fastmath <= kernels.ANY_ORDER, compiled
    eq(kernels.ANY_ORDER & {"fast", "nnan", "ninf"}, set())


@pytest.mark.parametrize("rows", [15, 16, 17, 127, 128, 300])
def test_each_path_of_the_address_rung(rows):
    """Up to 15 rows, up to a million multiplications, and more: each path, and its edges."""
    product = random_product((rows, 784, 10))
    product.check(RUNGS["matmul_numba_address"].fn(product.a, product.b))


@pytest.mark.parametrize(
    "shape, path",
    [
        ((5, 784, 10), "_at_addresses"),
        ((999, 1001, 1), "_at_addresses"),
        ((100, 100, 100), "_at_addresses_parallel"),
        ((0, 7, 7), None),
    ],
)
def test_threads_wake_from_a_million_multiplications_on(monkeypatch, shape, path):
    taken = []
    for name in "_at_addresses", "_at_addresses_parallel":
        monkeypatch.setattr(kernels, name, lambda *args, name=name: taken.append(name))
    m, k, n = shape
    RUNGS["matmul_numba_address"].fn(torch.ones(m, k), torch.ones(k, n))
    eq(taken, [path] if path else [])


@pytest.mark.parametrize("columns", [0, 1, 4, 5, 6, 10, 11])
def test_padded_transpose(columns):
    b = np.arange(1, 3 * columns + 1, dtype="f4").reshape(3, columns)
    bt = kernels.padded_transpose(b)
    eq((bt.dtype, bt.flags.c_contiguous), (np.float32, True))
    eq(len(bt), math.ceil(columns / TILE_COLUMNS) * TILE_COLUMNS)
    eq(bt.tolist(), b.T.tolist() + [[0.0] * 3] * (len(bt) - columns))


@pytest.mark.parametrize("rows, few", [(1, True), (15, True), (16, False), (17, False)])
def test_few_rows_take_another_path(rows, few):
    """Which of the two was taken shows in the last bits of the sums."""
    product = random_product((rows, 784, 10))
    a, b = product.a.numpy(), product.b.numpy()
    by_few, by_tiles = np.empty((2, rows, 10), "f4")
    kernels._few_rows(a, b, by_few)
    kernels._prefetched_tiles(a, kernels.padded_transpose(b), by_tiles)
    assert (by_few != by_tiles).any()
    c = RUNGS["matmul_numba_address"].fn(product.a, product.b).numpy()
    assert (c == (by_few if few else by_tiles)).all()


def test_matrix_at_an_address():
    @njit
    def described(address, shape):
        x = kernels.matrix_at(address, shape)
        return x.shape, x.strides, x.itemsize, x.size, x[1, 2]

    x = np.arange(12, dtype="f4").reshape(3, 4)
    there = described(x.ctypes.data, x.shape)
    eq(there, (x.shape, x.strides, x.itemsize, x.size, x[1, 2]))


def test_a_tile_prefetches_as_many_rows_as_it_has():
    """To read, into the second-level cache, once for each vector."""
    tile = kernels._prefetched_tile
    if not tile.signatures:
        kernels.matmul_numba_prefetch(torch.ones(9, 50), torch.ones(50, 7))
    ir = tile.inspect_llvm(tile.signatures[0])
    fetches = re.findall(r"call void @llvm\.prefetch\S*\((.*)\)", ir)
    eq(len(fetches) % kernels.TILE_ROWS, 0)
    assert fetches
    for fetch in fetches:
        assert fetch.endswith("i32 0, i32 2, i32 1"), fetch


class Subclass(torch.Tensor):
    pass


def nested(x):
    with warnings.catch_warnings(action="ignore"):  # it is a prototype
        return torch.nested.nested_tensor([x[0]] * 2)


def without_memory(x):
    x = x.clone()
    x.untyped_storage().resize_(4 * x.numel() - 1)
    return x


ONES = torch.ones(2, 3), torch.ones(3, 4)
ON_PAPER = [x.cfloat().conj().imag for x in ONES]
WRONG_OPERANDS = {
    "inner sizes": (ONES[0], torch.ones(4, 3), ValueError, r"takes shapes .*\(4, 3\)"),
    "1 column": (torch.ones(2, 1), ONES[1], ValueError, r"takes shapes .*\(2, 1\)"),
    "1-D a": (torch.ones(3), ONES[1], ValueError, r"takes shapes .*\(3,\)"),
    "1-D b": (ONES[0], torch.ones(3), ValueError, r"takes shapes .*\(3,\)"),
    "3-D": (torch.ones(1, 2, 3), ONES[1], ValueError, r"takes shapes .*\(1, 2, 3\)"),
    "0-D": (ONES[0], torch.tensor(1.0), ValueError, r"takes shapes .*\(\)"),
    "float64": (ONES[0].double(), ONES[1], TypeError, "a is torch.float64"),
    "both float64": (ONES[0].double(), ONES[1].double(), TypeError, "a is torch.float64"),
    "bfloat16": (ONES[0], ONES[1].bfloat16(), TypeError, "b is torch.bfloat16"),
    "integers": (ONES[0], ONES[1].long(), TypeError, "b is torch.int64"),
    "complex": (ONES[0].cfloat(), ONES[1], TypeError, "a is torch.complex64"),
    "sparse": (ONES[0], ONES[1].to_sparse(), TypeError, "torch.sparse_coo, not float32"),
    "numpy": (ONES[0].numpy(), ONES[1], TypeError, "a is a ndarray, not a plain torch.Tensor"),
    "list": (ONES[0], [[1.0]] * 3, TypeError, "b is a list, not a plain torch.Tensor"),
    "None": (None, ONES[1], TypeError, "a is a NoneType, not a plain torch.Tensor"),
    "gradients": (ONES[0].clone().requires_grad_(), ONES[1], ValueError, "a records grad"),
    "gradients in b": (ONES[0], ONES[1].clone().requires_grad_(), ValueError, "b records grad"),
    "nested b": (ONES[0], nested(ONES[1]), TypeError, "b is a Tensor, not a plain"),
    "zeros on paper in b": (ONES[0], torch._efficientzerotensor((3, 4)), ValueError, "b has less"),
    "negated on paper in b": (ONES[0], ON_PAPER[1], ValueError, "b records gradients or is a lazily"),
    "a subclass": (ONES[0].as_subclass(Subclass), ONES[1], TypeError, "a is a Subclass"),
    "nested": (nested(ONES[0]), ONES[1], TypeError, "a is a Tensor, not a plain"),
    "zeros on paper": (torch._efficientzerotensor((2, 3)), ONES[1], ValueError, "less memory"),
    "no memory": (ONES[0], without_memory(ONES[1]), ValueError, "b has less memory than its 12"),
    "negated on paper": (ON_PAPER[0], ONES[1], ValueError, "lazily negated view"),
    "elsewhere": (ONES[0], ONES[1].to("meta"), ValueError, "b is on meta, not on c"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_OPERANDS)
@pytest.mark.parametrize("rung", RUNGS)
def test_wrong_operands(rung, case):
    if RUNGS[rung].device == "cuda" and not numba.config.ENABLE_CUDASIM:
        pytest.skip("these operands are in memory, not on a GPU")
    a, b, error, message = WRONG_OPERANDS[case]
    with pytest.raises(error, match=message):
        getattr(kernels, rung)(a, b)


def strided(size, stride, offset):
    return torch.ones(99).as_strided(size, stride, offset)


@pytest.mark.parametrize(
    "x, floats",
    [
        (strided((2, 3), (3, 1), 0), 6),
        (strided((2, 3), (3, 1), 5), 11),
        (strided((2, 3), (1, 2), 5), 11),
        (strided((2, 3), (12, 4), 0), 21),
        (strided((2, 3), (0, 1), 7), 10),
        (strided((2, 3), (0, 0), 7), 8),
    ],
    ids=["dense", "a slice", "transposed", "steps", "expanded", "one float"],
)
def test_memory_to_the_last_float(x, floats):
    """A tensor is refused if its memory ends before its last element, and only then."""
    other = torch.ones(3, 1)
    x.untyped_storage().resize_(4 * floats)
    kernels.check_operands(x, other, "cpu")
    x.untyped_storage().resize_(4 * floats - 1)
    with pytest.raises(ValueError, match="a has less memory than its 6 elements"):
        kernels.check_operands(x, other, "cpu")


@pytest.mark.parametrize("offset", [0, 5])
def test_no_elements_need_no_memory(offset):
    empty = torch.ones(9)[offset:offset].reshape(3, 0)
    empty.untyped_storage().resize_(0)
    kernels.check_operands(empty, torch.ones(0, 2), "cpu")


@pytest.mark.parametrize(
    "features, tile",
    [
        ({"avx512f": True}, (16, 5, 5)),
        ({"avx2": True}, (8, 2, 5)),
        ({"neon": True}, (4, 5, 5)),
    ],
)
def test_tile_size(features, tile):
    eq(kernels.tile_size(features), tile)


def test_references(small_product, full_product):
    for product, shape in (small_product, (5, 10)), (full_product, (50_000, 10)):
        eq(product.reference.shape, torch.Size(shape))
        product.check(product.reference)


def test_every_product_is_a_rung():
    """Its name begins with matmul_, has _cuda in it for a GPU, and checks the operands."""
    products = {name for name in vars(kernels) if name.startswith("matmul_")}
    eq(products - {"matmul_cell", "matmul_kernel"}, set(RUNGS))
    for name, rung in RUNGS.items():
        eq(getattr(kernels, name).__wrapped__, rung.fn)
        eq(rung.device, "cuda" if "_cuda" in name else "cpu")
        with pytest.raises(FrozenInstanceError):
            rung.fn = None


def test_rungs_of_the_course():
    course = """
        matmul_loops matmul_numba_dot matmul_elementwise matmul_torch_dot matmul_broadcast
        matmul_einsum matmul_torch matmul_launch_kernel matmul_cuda matmul_torch_cuda
    """.split()
    eq([name for name in RUNGS if name in course], course)
    for name, rung in RUNGS.items():
        eq((rung.name, rung.fn.__name__), (name, name))


@pytest.mark.parametrize(
    "name, doc, shapes, message",
    [
        ("matmul_loops", "New.", [SMALL], "there already is a rung matmul_loops"),
        ("matmul_new", None, [SMALL], "matmul_new: a rung has a docstring"),
        ("matmul_new", "New.", [FULL], "matmul_new: a rung has .* and the shapes"),
        ("matmul_new", "New.", [SMALL, "6x7x8"], "matmul_new: a rung has .* not"),
    ],
    ids=["a name taken", "no docstring", "not the small shape", "an unknown shape"],
)
def test_a_rung_that_is_not_registered(name, doc, shapes, message):
    def fn(a, b):
        return a @ b

    fn.__name__, fn.__doc__ = name, doc
    with pytest.raises(ValueError, match=message):
        kernels.rung(shapes)(fn)
    assert RUNGS.get(name) is not fn


def test_rung_without_parentheses():
    with pytest.raises(TypeError, match=r"write @rung\(\), with parentheses, above f"):
        kernels.rung(frobenius)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda c: c[:-1], "shape"),
        (lambda c: c.double(), "dtype"),
        (lambda c: c.numpy(), "Tensor"),
        (lambda c: c.T.contiguous().reshape(c.shape), "of 21 cells differ"),
        (lambda c: c.index_put_([torch.tensor(2), torch.tensor(6)], torch.tensor(math.nan)),
         r"1 of 21 cells differ .* worst is \(2, 6\): nan, not "),
    ],
    ids=["a row too few", "float64", "numpy", "transposed", "NaN"],
)  # fmt: skip
def test_the_proof_refuses(dense, spoil, message):
    c = dense.a @ dense.b
    dense.check(c)
    with pytest.raises(AssertionError, match=message):
        dense.check(spoil(c))


# ---- dot ---------------------------------------------------------------------------

VECTORS = np.array([1.0, 2, 3]), np.array([2.0, 3, 4])


def test_dot():
    eq(dot(*VECTORS), 20.0)
    eq(dot.py_func(*VECTORS), 20.0)
    eq(dot(np.zeros(0), np.zeros(0)), 0.0)
    eq(dot(np.array([1e8, 1, -1e8], "f4"), np.ones(3, "f4")), 1.0)  # 0 in float32


@pytest.mark.parametrize("call", ["first, compiles", "second"])
def test_dot_compile(benchmark, call):
    benchmark.group = "dot"

    def fresh():
        return (njit(dot.py_func), *VECTORS), {}

    if call == "second":
        fn = fresh()[0][0]
        eq(fn(*VECTORS), 20.0)
        benchmark(fn, *VECTORS)
    else:
        first = benchmark.pedantic(lambda fn, a, b: fn(a, b), setup=fresh, rounds=5)
        eq(first, 20.0)


# ---- Elementwise operations --------------------------------------------------------

A, B = torch.tensor([10.0, 6, -4]), torch.tensor([2.0, 8, 7])
M = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


@pytest.mark.parametrize(
    "result, expected",
    [
        (A + B, [12.0, 14, 3]),
        ((A < B).float().mean(), 2 / 3),
        (frobenius(M), math.sqrt(285)),
        (M[0, :], [1.0, 2, 3]),
        (M[:, 2], [3.0, 6, 9]),
        (M[1:, :2], [[4.0, 5], [7, 8]]),
        (M[-1], [7.0, 8, 9]),
    ],
    ids=["a + b", "a < b", "frobenius", "row", "column", "block", "last row"],
)
def test_elementwise(result, expected):
    expected = torch.tensor(expected)
    eq(result.shape, expected.shape)
    close(result, expected, eps=1e-6)


def test_frobenius_prints_as_in_the_course():
    eq(f"{frobenius(M):.2f}", "16.88")
