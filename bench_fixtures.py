"""The data, the operands, and the rule: nothing is timed before it is shown to be right."""

import os
import sys
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numba
import numpy as np
import pytest
import torch
from fastcore.test import test_close as close

import kernels
from mnist import download_mnist, load_mnist, path_data, path_gz
from rungs import FULL, RUNGS, SMALL, check_operands

import beyond  # noqa: F401

SLOW = 0.25  # seconds; a call that takes longer is timed once
COMPILED = 3  # seconds; a first call that takes longer does not owe it to a compiler


# ---- The data ----------------------------------------------------------------------

SAMPLE = path_data / "mnist-sample.pkl.gz"
chosen_data = pytest.StashKey()
load_once = cache(load_mnist)


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
        parts = a.split(50_000)
        exact = torch.cat([part.double() @ b.double() for part in parts])
        size = torch.cat([part.double().abs() @ b.double().abs() for part in parts])
        bound = a.shape[1] * 2**-24 * size + torch.finfo(torch.float32).tiny
        return cls(a, b, exact, bound, reference)

    @classmethod
    def random(cls, m, k, n):
        """Return one of dense random operands, (m, k) and (k, n), the same in each run."""
        generator = torch.Generator().manual_seed(m * 10_000 + k * 100 + n)
        return cls.of(*(torch.randn(size, generator=generator) for size in ((m, k), (k, n))))

    def rows(self, rows):
        """Return the product for that many rows of a, repeated if there are fewer."""
        times = -(-rows // len(self.a))

        def take(tensor):
            return tensor[:rows] if times == 1 else tensor.repeat(times, 1)[:rows]

        return Product(take(self.a), self.b, take(self.exact), take(self.bound))

    @property
    def info(self):
        """The shape, and the least work and traffic of the product, for ``extra_info``."""
        (m, k), n = self.a.shape, self.b.shape[1]
        return {
            "shape": f"{m}x{k}x{n}",
            "flops": 2 * m * k * n,
            "bytes": 4 * (m * k + k * n + m * n),
        }

    def check(self, c):
        """Fail unless ``c`` is the product, as a float32 tensor."""
        assert isinstance(c, torch.Tensor), f"a {type(c)}, not a torch.Tensor"
        assert c.dtype == torch.float32, f"the dtype is {c.dtype}, not float32"
        assert c.shape == self.exact.shape, f"the shape is {tuple(c.shape)}"
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
    """The `Product` of the named shape on which the test runs."""
    fixture = {SMALL: "small_product", FULL: "full_product"}[shape]
    return request.getfixturevalue(fixture)


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
        if SLOW < seconds < COMPILED:
            seconds, _ = clocked(fn, *args)
        if seconds > SLOW:
            benchmark.pedantic(fn, args)
        else:
            benchmark(fn, *args)

    return timed


def clocked(fn, *args):
    start = perf_counter()
    result = fn(*args)
    return perf_counter() - start, result


@pytest.fixture
def time_rung(timed, dense, progress):
    """``time_rung(group, rung, product)``: check the rung on dense operands (which compiles
    it, too) and on the product's own, then time it. ``to`` puts tensors on its device."""

    def time_rung(group, rung, product, to=lambda tensor: tensor):
        rung = RUNGS[rung]
        progress("compiling and checking")
        dense.check(rung.fn(to(dense.a), to(dense.b)))
        a, b = to(product.a), to(product.b)
        check_operands(a, b, rung.device)
        timed(group, product.check, rung.fn, a, b, **place(rung), **product.info)

    return time_rung


def place(rung):
    """Return where in the ladder a rung stands."""
    return {"rung": rung.name, "step": list(RUNGS).index(rung.name), "device": rung.device}


@pytest.fixture
def progress(request):
    """``progress(doing)``: tell the user what is being done with this test's benchmark."""
    plugin = request.config.pluginmanager.get_plugin("progress")
    return (lambda doing: plugin.show(request.node, doing)) if plugin else str


# ---- The GPU, or its simulator -----------------------------------------------------


def has_gpu():
    return torch.cuda.is_available() and not numba.config.ENABLE_CUDASIM


def skip_if_not_simulated(rung):
    if rung == "matmul_torch_cuda" and not has_gpu():
        pytest.skip("there is no GPU, and torch has no simulator of one")
    if not has_gpu() and not numba.config.ENABLE_CUDASIM:
        pytest.skip("there is no GPU, and NUMBA_ENABLE_CUDASIM=0 forbids the simulator")


@pytest.fixture(scope="module")
def patient_simulator():
    """The simulator's scheduler polls its threads; let these run more often in between."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
