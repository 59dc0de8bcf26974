"""The data, the operands, and the rule: nothing is timed before it is shown to be right."""

import os
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numba
import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from numba import cuda

import kernels
from machine import free_memory, waited
from mnist import download_mnist, load_mnist, path_data, path_gz
from rungs import FULL, RUNGS, SMALL, check_operands

import beyond  # noqa: F401

ONCE_ABOVE = 0.25  # seconds; a call that takes longer is timed once
NOT_COMPILING_ABOVE = 3  # seconds; a first call that takes longer does not owe it to a compiler
SKIP_ABOVE = 10  # seconds; a rung that would take longer is not timed


# ---- The data ----------------------------------------------------------------------

own_shapes = []  # of --shape
SAMPLE = path_data / "mnist-sample.pkl.gz"
chosen_data = pytest.StashKey()
load_once = cache(load_mnist)


def pytest_configure(config):
    own_shapes[:] = config.getoption("shape")


def choose_data(config):
    """Return the path of the data to use, and why it is that one; choose only once."""
    if chosen_data not in config.stash:
        config.stash[chosen_data] = _choose_data(config)
    return config.stash[chosen_data]


def _choose_data(config):
    option = config.getoption("mnist")
    if not option:
        raise pytest.UsageError("--mnist takes auto, sample or the path of a file")
    if option == "sample":
        return SAMPLE, "chosen by --mnist"
    if option != "auto":
        path = config.invocation_params.dir / os.path.expanduser(option)
        if not path.exists():
            raise pytest.UsageError(f"--mnist={option}: there is no such file")
        return path, "chosen by --mnist"
    if path_gz.exists():
        return path_gz, "found there"
    try:
        return download_mnist(path_gz, timeout=5), "downloaded now"
    except (OSError, ValueError) as error:
        return SAMPLE, f"no data/mnist.pkl.gz, and the download failed: {error}"


@pytest.fixture(scope="session")
def mnist(request):
    """``((x_train, y_train), (x_valid, y_valid), (x_test, y_test))`` as in the file."""
    path, why = choose_data(request.config)
    try:
        return load_once(path)
    except (OSError, ValueError) as error:
        pytest.exit(
            f"{error}\n{path} was {why}. Give another file, or run with --mnist=sample.",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


@pytest.fixture(scope="session")
def whole_mnist(mnist):
    """Whether this is the whole data set, on which all of the course's values hold."""
    return [len(x) for x, y in mnist] == [50_000, 10_000, 10_000]


@pytest.fixture(scope="session")
def train(mnist):
    """x_train (50000, 784) and y_train (50000,) as tensors; the sample repeats its rows."""
    return [torch.tensor(np.resize(array, (50_000, *array.shape[1:]))) for array in mnist[0]]


@pytest.fixture(scope="session")
def x_train(train):
    return train[0]


@pytest.fixture(scope="session")
def y_train(train):
    return train[1]


@pytest.fixture(scope="session")
def m1(mnist):
    x_valid, _ = mnist[1]
    return torch.from_numpy(x_valid)[:5]


@pytest.fixture(scope="session")
def weights():
    return torch.randn(784, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def m2(weights):
    return weights


# ---- The check of correctness ------------------------------------------------------


@dataclass
class Product:
    """A pair of operands, and what their float32 product has to be.

    A sum of K products in float32, in any order, is off by at most K * 2**-24 * |a| @ |b|
    (first order). The reference may be off by as much if it is float32 itself.
    """

    a: torch.Tensor
    b: torch.Tensor
    exact: torch.Tensor
    bound: torch.Tensor
    reference: torch.Tensor | None = None

    @classmethod
    def of(cls, a, b, reference=None):
        # A part of the rows at a time: the whole as float64 would take twice the memory.
        need_memory(check_memory(len(a), *b.shape))
        parts = a.split(50_000)
        exact = torch.cat([part.double() @ b.double() for part in parts])
        size = torch.cat([part.double().abs() @ b.double().abs() for part in parts])
        bound = a.shape[1] * 2**-24 * size + torch.finfo(torch.float32).tiny
        return cls(a, b, exact, bound, reference)

    @classmethod
    def random(cls, m, k, n):
        """Return one of dense random operands, (m, k) and (k, n), the same in each run."""
        need_memory(4 * (m * k + k * n) + check_memory(m, k, n))
        generator = torch.Generator().manual_seed(m * 10_000 + k * 100 + n)
        return cls.of(*(torch.randn(size, generator=generator) for size in ((m, k), (k, n))))

    def rows(self, rows):
        """Return the product for that many rows of a, repeated if there are fewer."""
        times = -(-rows // len(self.a))
        need_memory(4 * rows * self.a.shape[1])

        def take(tensor):
            return tensor[:rows] if times == 1 else tensor.repeat(times, 1)[:rows]

        return Product(take(self.a), self.b, take(self.exact), take(self.bound))

    @property
    def flops(self):
        return 2 * self.a.numel() * self.b.shape[1]

    @property
    def info(self):
        """The shape, and the least work and traffic of the product, for ``extra_info``."""
        (m, k), n = self.a.shape, self.b.shape[1]
        traffic = 4 * (m * k + k * n + m * n)
        return {"shape": f"{m}x{k}x{n}", "flops": self.flops, "bytes": traffic}

    def check(self, c):
        """Fail unless ``c`` is the product, as a float32 tensor."""
        assert isinstance(c, torch.Tensor), f"a {type(c)}, not a torch.Tensor"
        assert c.dtype == torch.float32, f"the dtype is {c.dtype}, not float32"
        assert c.shape == self.exact.shape, (
            f"the shape is {tuple(c.shape)}, not {tuple(self.exact.shape)}"
        )
        self._check_close(c, self.exact, self.bound, "the float64 product")
        if self.reference is not None:
            self._check_close(c, self.reference, 2 * self.bound, "the reference")

    @staticmethod
    def _check_close(c, expected, eps, name):
        c, expected = c.cpu().double(), expected.double()
        try:
            close(c, expected, eps=eps)
        except AssertionError:
            error = (c - expected).abs().nan_to_num(nan=float("inf"))
            i, j = divmod(int((error / eps).argmax()), c.shape[1])
            wrong = int((~(error < eps)).sum())
            raise AssertionError(
                f"{wrong} of {c.numel()} cells differ from {name}; worst is ({i}, {j}): "
                f"{c[i, j]:.9g}, not {expected[i, j]:.9g}, where ±{eps[i, j]:.2g} is allowed"
            ) from None


@pytest.fixture(scope="session")
def dense():
    """A product without the zeros at the edges of every digit."""
    return Product.random(3, 50, 7)


@pytest.fixture(scope="session")
def t1(m1, m2):
    """The reference: the triple loop's product, (5, 10)."""
    return kernels.matmul_loops(m1, m2)


@pytest.fixture(scope="session")
def tr(x_train, weights):
    """The reference for the full shape: the broadcast version's product, (50000, 10)."""
    return kernels.matmul_broadcast(x_train, weights)


@pytest.fixture(scope="session")
def small_product(m1, m2, t1):
    return Product.of(m1, m2, t1)


@pytest.fixture(scope="session")
def full_product(x_train, weights, tr):
    return Product.of(x_train, weights, tr)


@pytest.fixture
def product(request, shape):
    """The `Product` of the shape "MxKxN" on which the test runs."""
    fixture = {SMALL: "small_product", FULL: "full_product"}.get(shape)
    return request.getfixturevalue(fixture) if fixture else random_product(shape)


@cache
def random_product(shape):
    return Product.random(*map(int, shape.split("x")))


# ---- The timing --------------------------------------------------------------------


@pytest.fixture
def timed(benchmark, progress):
    """``timed(group, check, fn, *args)``: pass fn's result to ``check``, and only then time fn.

    Keyword arguments are saved as the benchmark's ``extra_info``.
    """

    def timed(group, check, fn, *args, **extra_info):
        benchmark.group = group
        benchmark.extra_info.update(extra_info)
        progress("compiling and checking")
        seconds, result = clocked(fn, *args)
        check(result)
        if benchmark.disabled:
            return benchmark.pedantic(lambda: None)  # it has been called and checked
        progress("timing")
        if ONCE_ABOVE < seconds < NOT_COMPILING_ABOVE:
            seconds, _ = clocked(fn, *args)
        waiting, start = waited(), perf_counter()
        with warnings.catch_warnings(action="ignore"):  # the check has let them be shown
            if seconds > ONCE_ABOVE:
                benchmark.pedantic(fn, args)
            else:
                benchmark(fn, *args)
        share = (waited() - waiting) / (perf_counter() - start)
        benchmark.extra_info["waited"] = share  # thread-seconds without a core, for each second

    return timed


def check_memory(m, k, n):
    """Return how many bytes the float64 product of such operands takes, beside them."""
    return 16 * (min(m, 50_000) * k + k * n) + 32 * m * n


def need_memory(size):
    """Skip the test unless so many bytes can be allocated."""
    if size > (free := free_memory()):
        pytest.skip(f"it needs {size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")


def clocked(fn, *args):
    start = perf_counter()
    result = fn(*args)
    return perf_counter() - start, result


def shortest(fn, *args):
    """Return the time of the shortest of three calls, less what their threads waited for a core."""

    def own_time():
        waiting = waited()
        seconds, _ = clocked(fn, *args)
        return max(0, seconds - (waited() - waiting))

    return min(own_time() for _ in range(3))


@pytest.fixture
def time_rung(timed, dense, small_product, progress):
    """``time_rung(group, rung, product)``: check the rung on dense operands (which compiles
    it, too) and on the product's own, then time it. ``to`` puts tensors on its device."""

    def time_rung(group, rung, product, to=lambda tensor: tensor):
        rung = RUNGS[rung]
        if rung.device == "cuda":
            skip_if_not_simulated(rung.name)
        progress("compiling and checking")
        a, b = to(dense.a.clone()), to(dense.b.clone())
        dense.check(rung.fn(a, b))
        unchanged = a.equal(to(dense.a)) and b.equal(to(dense.b))
        assert unchanged, f"{rung.name} has changed its operands"
        if product.flops > small_product.flops:
            small = shortest(rung.fn, to(small_product.a), to(small_product.b))
            seconds = small * product.flops / small_product.flops
            if seconds > SKIP_ABOVE:
                pytest.skip(f"it would take about {seconds:,.0f} s, extrapolated from {SMALL}")
        a, b = to(product.a), to(product.b)
        check_operands(a, b, rung.device)
        versions = a._version, b._version

        def check(c):
            product.check(c)
            assert (a._version, b._version) == versions, f"{rung.name} has changed its operands"

        timed(group, check, rung.fn, a, b, **place(rung), **product.info)

    return time_rung


def place(rung):
    """Return where in the ladder a rung stands, and what is new in it."""
    return {
        "rung": rung.name,
        "step": list(RUNGS).index(rung.name),
        "device": rung.device,
        "chapter": rung.chapter,
        "new": (rung.fn.__doc__ or "").strip().partition("\n")[0],
    }


def cases(device):
    """Return the (rung, shape) to time: the shapes of each rung, or those of ``--shape`` for all."""
    rungs = [rung for rung in RUNGS.values() if rung.device == device]
    return [(rung.name, shape) for rung in rungs for shape in own_shapes or rung.shapes]


@pytest.fixture
def progress(request):
    """``progress(doing)``: tell the user what is being done with this test's benchmark."""
    plugin = request.config.pluginmanager.get_plugin("progress")
    return (lambda doing: plugin.show(request.node, doing)) if plugin else str


# ---- The GPU, or its simulator -----------------------------------------------------


def has_gpu():
    return torch.cuda.is_available() and not numba.config.ENABLE_CUDASIM


def skip_if_not_simulated(rung):
    """Skip the test of a GPU rung if it can't run here, neither on a GPU nor in the simulator."""
    by_torch = rung == "matmul_torch_cuda"
    if has_gpu():
        if not by_torch and not cuda.is_available():
            pytest.skip("Numba finds no CUDA toolkit (libNVVM): install requirements-cuda.txt")
    elif by_torch:
        pytest.skip("there is no GPU, and torch has no simulator of one")
    elif not numba.config.ENABLE_CUDASIM:
        pytest.skip("there is no GPU, and NUMBA_ENABLE_CUDASIM=0 forbids the simulator")


@pytest.fixture(scope="module")
def patient_simulator():
    """The simulator's scheduler polls its threads; let these run more often in between."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
