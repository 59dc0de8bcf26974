"""Fixtures: the data, the operands, and the rule that nothing is timed before it is proved."""

import os
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import pytest

import ladder

# torch, numba and kernels are imported where they are used: `pytest-benchmark compare`
# imports this file, and should not wait for them.

HERE = Path(__file__).parent
MNIST = HERE / "data" / "mnist.pkl.gz"
SAMPLE = HERE / "data" / "mnist-sample.pkl.gz"
ODD_SHAPES = """
    0x3x2 3x0x2 3x2x0 1x1x1 1x1x7 7x1x1 2x3x4 3x2x1 1x784x10 5x17x3 13x5x11 9x33x7 11x7x13
""".split()
COURSE_SEED = 457428938475
SLOW = 0.25  # seconds; a call that takes longer is timed once
COMPILED = 3  # seconds; a first call that takes longer does not owe it to a compiler

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this platform has no os.fork"
)
pytest_plugins = ["pytester"]  # test_ladder.py and test_compare.py run pytest
chosen_data, load_before = pytest.StashKey(), pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--mnist",
        default="auto",
        metavar="auto|sample|PATH",
        help="the data: auto takes data/mnist.pkl.gz, or else downloads it there, or "
        "else takes the embedded sample (default: auto)",
    )
    parser.addoption(
        "--figures",
        metavar="DIR",
        help="draw the ladder, and what the course draws, into this folder",
    )


def pytest_configure(config):
    if not __debug__:
        raise pytest.UsageError("python -O drops assert, and with it every proof")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        raise pytest.UsageError("NUMBA_DISABLE_JIT is set: no rung could be compiled")
    if not config.pluginmanager.has_plugin("benchmark"):
        raise pytest.UsageError(
            "this suite needs pytest-benchmark, which is turned off"
        )
    if folder := config.getoption("figures"):
        try:
            (config.invocation_params.dir / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"--figures: {error}") from None
    import torch
    from hypothesis import settings

    # The same examples in each run; --hypothesis-profile=soak looks for new ones.
    settings.register_profile(
        "fixed", derandomize=True, deadline=None, database=None, max_examples=50
    )
    settings.register_profile("soak", deadline=None, max_examples=3000, print_blob=True)
    settings.load_profile("fixed")
    if not torch.cuda.is_available():
        os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
    if sys.stdout.isatty() and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config), "progress")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["mnist"] = [str(item) for item in choose_data(node.config)]


def choose_data(config):
    """Return the path of the data to use, and why it is that one; choose only once."""
    if chosen_data not in config.stash:
        if hasattr(config, "workerinput"):
            path, why = config.workerinput["mnist"]
            config.stash[chosen_data] = Path(path), why
        else:
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
    if MNIST.exists():
        return MNIST, "found there"
    from kernels import download_mnist

    try:
        return download_mnist(MNIST, timeout=5), "downloaded now"
    except (OSError, ValueError) as error:
        return SAMPLE, f"no data/mnist.pkl.gz, and the download failed: {error}"


def pytest_report_header(config):
    import numba
    import torch

    if config.option.collectonly:
        return []
    path, why = choose_data(config)
    gpu = "none; its rungs are tested in Numba's simulator, and not timed"
    if has_gpu():
        gpu = torch.cuda.get_device_name()
    threads = f"torch {torch.get_num_threads()}, numba {numba.get_num_threads()}"
    config.stash[load_before] = load = getattr(os, "getloadavg", lambda: [0.0])()[0]
    lines = [f"mnist: {path} ({why})", f"gpu: {gpu}", f"threads: {threads}"]
    if load > 1:
        lines.append(
            f"load: {load:.1f}; something else is running, and it can slow down rungs with "
            "several threads a thousand times"
        )
    return lines


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if config.getoption("benchmark_only"):
        others = [item for item in items if "benchmark" not in item.fixturenames]
        items[:] = [item for item in items if "benchmark" in item.fixturenames]
        config.hook.pytest_deselected(items=others)


# ---- What a run says ---------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    try:
        return (yield)
    except OSError as error:  # pytest-benchmark could not write; show what it measured
        if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
            summarize(reporter, session.config)
            reporter.write_line(
                f"ERROR: this run could not be saved: {error}", red=True
            )
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    # Also if pytest-benchmark raises in between, as it does for a regression.
    try:
        return (yield)
    finally:
        summarize(terminalreporter, config)


def summarize(terminalreporter, config):
    session = config._benchmarksession
    run = {
        "benchmarks": [
            bench.as_dict(include_data=False, flat=False)
            for bench in session.benchmarks
            if bench and not bench.has_error
        ]
    }
    complete(config, run)
    write = terminalreporter.write_line
    reasons = Counter(
        skip_reason(item) for item in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in reasons.items():
        write(f"{count} skipped: {reason}")
    for line, style in ladder.report(run, min(100, terminalreporter._tw.fullwidth)):
        line = ladder.encodable(line, getattr(sys.stdout, "encoding", None))
        write(line, **{style: True} if style else {})
    if folder := config.getoption("figures"):
        run["machine_info"] = session.get_machine_info()
        describe(config, run)
        folder = config.invocation_params.dir / folder
        try:
            names = [path.name for _, path in ladder.figures(run, folder)]
            write(f"Drawn in {folder}: {', '.join(names)}, and the same as SVG")
        except OSError as error:
            write(f"ERROR: the run could not be drawn: {error}", red=True)


def skip_reason(report):
    return report.longrepr[2].removeprefix("Skipped: ")


def complete(config, run):
    """Add to a run's benchmarks what the ladder's tables need beside them."""
    run["load"] = config.stash.get(load_before, 0.0)
    run["skipped"] = untimed(config.pluginmanager.get_plugin("terminalreporter"))
    ladder.add_limits(run["benchmarks"])


def place(rung):
    """Return where in the ladder a rung stands."""
    from kernels import RUNGS

    step = list(RUNGS).index(rung)
    return {"rung": rung, "step": step, "device": RUNGS[rung].device}


def untimed(terminalreporter):
    """Return what the ladder says of the rungs that were to be timed, but were not."""
    from kernels import RUNGS

    if terminalreporter is None:  # -p no:terminal
        return []
    found = []
    for outcome in "skipped", "failed", "error":
        for report in terminalreporter.stats.get(outcome, []):
            file, _, case = report.nodeid.rpartition("::test_rung[")
            rung, _, shape = case.removesuffix("]").partition("-")
            if file and rung in RUNGS:
                reason = skip_reason(report) if outcome == "skipped" else "it failed"
                found.append(place(rung) | {"shape": shape, "reason": reason})
    return found


def describe(config, run):
    """Add to a run which data, libraries and GPU it used, and what the lesson draws from them."""
    from kernels import rand, seed

    path, why = choose_data(config)
    run["mnist"] = {"file": path.name, "why": why}
    libraries = "torch", "numba", "numpy", "fastcore", "pytest-benchmark"
    run["libraries"] = {name: version(name) for name in libraries}
    run.setdefault("datetime", datetime.now(UTC).isoformat())
    if has_gpu():
        import torch

        run["gpu"] = torch.cuda.get_device_name()
    (x_train, _), *_ = load_once(path)
    digit = (x_train[0] * 256).astype("u1").reshape(28, 28)
    seed(COURSE_SEED)
    fifty, counts = [rand() for _ in range(50)], [0] * 10
    for _ in range(10_000):
        counts[int(rand() * 10)] += 1
    run["lesson"] = {
        "digit": [row.tobytes().hex() for row in digit],
        "rand": fifty,
        "histogram": counts,
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    # The clock rate of the moment would make every two runs differ in their machine.
    for key in "hz_actual", "hz_actual_friendly":
        machine_info["cpu"].pop(key, None)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, benchmarks, output_json):
    complete(config, output_json)
    describe(config, output_json)
    if not config.getoption("benchmark_save_data"):
        for bench in output_json["benchmarks"]:
            bench["stats"].pop("data", None)


# ---- What is going on --------------------------------------------------------------


class Progress:
    """Shows below the line of dots, on a terminal, which benchmark is under way."""

    def __init__(self, config):
        self.config, self.item, self.done, self.total = config, None, 0, 0

    def pytest_collection_finish(self, session):
        self.total = sum(
            "benchmark" in item.fixturenames
            and not any(all(mark.args) for mark in item.iter_markers("skipif"))
            for item in session.items
        )

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.write("")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self):
        self.write("")

    def show(self, item, doing):
        if item is not self.item:
            self.item, self.done = item, self.done + 1
        self.write(f"benchmark {self.done} of {self.total}: {doing} {item.name}")

    def write(self, text):
        """Write into the next line of the terminal, and go back to where the cursor was."""
        plugins = self.config.pluginmanager
        tw = plugins.get_plugin("terminalreporter")._tw
        capture = plugins.get_plugin("capturemanager")
        column, text = tw.width_of_current_line + 1, text[: tw.fullwidth - 1]
        with capture.global_and_fixture_disabled():
            tw._file.write(f"\n\x1b[K{text}\x1b[A\x1b[{column}G")
            tw.flush()


@pytest.fixture
def progress(request):
    """``progress(doing)``: tell the user what is being done with this test's benchmark."""
    plugin = request.config.pluginmanager.get_plugin("progress")
    return (lambda doing: plugin.show(request.node, doing)) if plugin else str


def has_gpu():
    import numba
    import torch

    return torch.cuda.is_available() and not numba.config.ENABLE_CUDASIM


def skip_if_not_simulated(rung):
    import numba

    if rung == "matmul_torch_cuda" and not has_gpu():
        pytest.skip("there is no GPU, and torch has no simulator of one")
    if not has_gpu() and not numba.config.ENABLE_CUDASIM:
        pytest.skip("there is no GPU, and NUMBA_ENABLE_CUDASIM=0 forbids the simulator")


# ---- The data and the operands -----------------------------------------------------


@cache
def load_once(path):
    from kernels import load_mnist

    return load_mnist(path)


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
    import numpy as np
    import torch

    return tuple(
        torch.from_numpy(np.resize(array, (50_000, *array.shape[1:])))
        for array in mnist[0]
    )


@pytest.fixture(scope="session")
def x_train(train):
    return train[0]


@pytest.fixture(scope="session")
def y_train(train):
    return train[1]


@pytest.fixture(scope="session")
def m1(mnist):
    import torch

    x_valid, _ = mnist[1]
    return torch.from_numpy(x_valid)[:5]


@pytest.fixture(scope="session")
def weights():
    import torch

    return torch.randn(784, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def m2(weights):
    return weights


# ---- The proof ---------------------------------------------------------------------


@contextmanager
def quick_switches():
    """Let threads take turns more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def patient_simulator():
    """The simulator's scheduler polls its threads; let these run more often in between."""
    with quick_switches():
        yield


@dataclass
class Product:
    """A pair of operands, and what their float32 product has to be.

    A sum of K products in float32, in any order, is off by at most K * 2**-24 * |a| @ |b|
    (first order). The reference may be off by as much if it is float32 itself.
    """

    a: "torch.Tensor"  # noqa: F821
    b: "torch.Tensor"  # noqa: F821
    exact: "torch.Tensor"  # noqa: F821
    bound: "torch.Tensor"  # noqa: F821
    reference: "torch.Tensor | None" = None  # noqa: F821

    @classmethod
    def of(cls, a, b, reference=None):
        import torch

        # A part of the rows at a time: the whole as float64 would take twice the memory.
        parts = a.split(50_000)
        exact = torch.cat([part.double() @ b.double() for part in parts])
        size = torch.cat([part.double().abs() @ b.double().abs() for part in parts])
        bound = a.shape[1] * 2**-24 * size + torch.finfo(torch.float32).tiny
        return cls(a, b, exact, bound, reference)

    def rows(self, rows):
        """Return the product for that many rows of a, repeated if there are fewer."""
        times = -(-rows // len(self.a))

        def take(tensor):
            return tensor[:rows] if times == 1 else tensor.repeat(times, 1)[:rows]

        a, exact, bound = map(take, (self.a, self.exact, self.bound))
        return Product(a, self.b, exact, bound)

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
        import torch

        assert isinstance(c, torch.Tensor), f"a {type(c)}, not a torch.Tensor"
        assert c.dtype == torch.float32, f"the dtype is {c.dtype}, not float32"
        assert c.shape == self.exact.shape, f"the shape is {tuple(c.shape)}"
        self._check_close(c, self.exact, self.bound, "the float64 product")
        if self.reference is not None:
            self._check_close(c, self.reference, 2 * self.bound, "the reference")

    @staticmethod
    def _check_close(c, expected, eps, name):
        from fastcore.test import test_close

        c, expected = c.cpu().double(), expected.double()
        try:
            test_close(c, expected, eps=eps)
        except AssertionError:
            error = (c - expected).abs().nan_to_num(nan=float("inf"))
            i, j = divmod(int((error / eps).argmax()), c.shape[1])
            wrong = int((~(error < eps)).sum())
            raise AssertionError(
                f"{wrong} of {c.numel()} cells differ from {name}; worst is ({i}, {j}): "
                f"{c[i, j]:.9g}, not {expected[i, j]:.9g}, where ±{eps[i, j]:.2g} is allowed"
            ) from None


def random_product(shape):
    """Return a `Product` of dense random operands of shape (m, k, n)."""
    import torch

    m, k, n = shape
    generator = torch.Generator().manual_seed(m * 10_000 + k * 100 + n)
    return Product.of(
        torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
    )


@pytest.fixture(scope="session")
def dense():
    """A product without the zeros at the edges of every digit."""
    return random_product((3, 50, 7))


@pytest.fixture
def odd(request):
    """The `Product` of the shape in the test's parameter, such as "17x3x5"."""
    return random_product(map(int, request.param.split("x")))


@pytest.fixture(params=["transposed", "steps", "expanded"])
def odd_strided(request):
    """A `Product` of operands that are not contiguous."""
    odd = random_product((9, 12, 11))
    a, b = {
        "transposed": lambda: (odd.a.T.contiguous().T, odd.b.T.contiguous().T),
        "steps": lambda: (odd.a[::2, ::3], odd.b[::3, ::2]),
        "expanded": lambda: (odd.a[:1].expand(9, 12), odd.b[:, :1].expand(12, 11)),
    }[request.param]()
    return Product.of(a, b)


@pytest.fixture(scope="session")
def t1(m1, m2):
    """The reference: the triple loop's product, (5, 10)."""
    from kernels import matmul_loops

    return matmul_loops(m1, m2)


@pytest.fixture(scope="session")
def tr(x_train, weights):
    """The reference for the full shape: the broadcast version's product, (50000, 10)."""
    from kernels import matmul_broadcast

    return matmul_broadcast(x_train, weights)


@pytest.fixture(scope="session")
def small_product(m1, m2, t1):
    return Product.of(m1, m2, t1)


@pytest.fixture(scope="session")
def full_product(x_train, weights, tr):
    return Product.of(x_train, weights, tr)


@pytest.fixture
def product(request, shape):
    """The `Product` of the named shape on which the test runs."""
    from kernels import FULL, SMALL

    fixture = {SMALL: "small_product", FULL: "full_product"}[shape]
    return request.getfixturevalue(fixture)


@pytest.fixture
def time_rung(timed, dense, progress):
    """``time_rung(group, rung, product)``: prove the rung on dense operands (which compiles
    it, too) and on the product's own, then time it. ``to`` puts tensors on its device."""
    from kernels import RUNGS, check_operands

    def time_rung(group, rung, product, to=lambda tensor: tensor):
        rung = RUNGS[rung]
        progress("compiling and proving")
        dense.check(rung.fn(to(dense.a), to(dense.b)))
        a, b = to(product.a), to(product.b)
        check_operands(a, b, rung.device)
        timed(group, product.check, rung.fn, a, b, **place(rung.name), **product.info)

    return time_rung


def clocked(fn, *args):
    start = perf_counter()
    result = fn(*args)
    return perf_counter() - start, result


@pytest.fixture
def timed(benchmark, progress):
    """``timed(group, check, fn, *args)``: pass fn's result to ``check``, and only then time fn.

    Keyword arguments are saved as the benchmark's ``extra_info``.
    """

    def timed(group, check, fn, *args, **extra_info):
        benchmark.group = group
        benchmark.extra_info.update(extra_info)
        progress("compiling and proving")
        seconds, result = clocked(fn, *args)
        check(result)
        if benchmark.disabled:
            return benchmark.pedantic(lambda: None)  # it has been called and proved
        progress("timing")
        if SLOW < seconds < COMPILED:
            seconds, _ = clocked(fn, *args)
        if seconds > SLOW:
            benchmark.pedantic(fn, args)
        else:
            benchmark(fn, *args)

    return timed
