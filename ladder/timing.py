"""The rule of the suite: nothing is timed before it is shown to be right."""

import math
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ladder.gpu import has_gpu, on_device
from ladder.machine import Waiting, free_memory
from ladder.run import is_noisy
from ladder.shape import SMALL, Shape

SLOW = 0.25  # seconds; a call that takes longer is timed in few rounds
SLOW_ROUNDS = 3
SKIP_ABOVE = 10  # seconds; a rung that would take longer is not timed
PROBE = 0.05  # seconds; a call that takes longer predicts how long a larger product takes
CALLS_ON_A_GPU = 20  # in a row, before one wait for the last
AGAIN = 15  # seconds, in all, to time again what was noisy
KEPT_IF_NOISY, KEPT = 2**28, 2**20  # bytes of arguments that are kept for the end of the run

measurements = pytest.StashKey()  # a list of Measurement


@dataclass
class Measurement:
    """A function that was timed, so that it can be called again at the end of the run."""

    benchmark: Any  # the fixture of pytest-benchmark, with its statistics
    check: Any
    fn: Any
    args: tuple

    @property
    def is_noisy(self):
        stats, info = self.benchmark.stats.stats, self.benchmark.extra_info
        return is_noisy(stats.min, stats.median, stats.iqr, info["waited"])


def keep(config, measurement):
    """Keep a measurement for the end of the run, unless its arguments would fill the memory."""
    size = sum(getattr(arg, "nbytes", 0) for arg in measurement.args)
    if size <= (KEPT_IF_NOISY if measurement.is_noisy else KEPT):
        config.stash.setdefault(measurements, []).append(measurement)


def synchronized():
    """A clock for the GPU: wait until it has finished, then read the time in seconds."""
    torch.cuda.synchronize()
    return time.perf_counter()


def clocked(fn, *args):
    """Return how long a call takes in seconds, to its end on a GPU if there is one, and its result."""
    clock = synchronized if has_gpu() else time.perf_counter
    start = clock()
    result = fn(*args)
    return clock() - start, result


@pytest.fixture
def timed(benchmark, request):
    """``timed(check, fn, *args)`` is ``benchmark(fn, *args)`` for a function that is right.

    ``check(result)`` raises AssertionError unless the result is right. It sees the result of the
    first call, which compiles what has to be compiled, before anything is timed; and the result of
    the last call afterwards. A slow function is timed in three rounds; on a GPU, 20 calls in a row
    make a round. Returns the last result.
    """

    def timed(check, fn, *args):
        seconds, result = clocked(fn, *args)
        check(result)
        if benchmark.disabled:  # --benchmark-disable: hand over the result that there is
            return benchmark.pedantic(lambda: result)
        if seconds > SLOW:  # but perhaps only the first time, when it was compiled
            seconds, result = clocked(fn, *args)
        benchmark.has_error = True  # until the last result is checked, too
        waiting = Waiting()
        with warnings.catch_warnings(action="ignore"):  # the first call has shown them
            if seconds > SLOW:
                last = benchmark.pedantic(fn, args, rounds=SLOW_ROUNDS)
            elif request.node.get_closest_marker("cuda"):
                most = float(request.config.getoption("benchmark_max_time"))
                rounds = min(max(5, int(most / (CALLS_ON_A_GPU * seconds))), 1000)
                last = benchmark.pedantic(
                    fn, args, rounds=rounds, iterations=CALLS_ON_A_GPU, warmup_rounds=1
                )
            else:
                last = benchmark(fn, *args)
        benchmark.extra_info["waited"] = waiting.share()
        check(last)
        benchmark.has_error = False
        keep(request.config, Measurement(benchmark, check, fn, args))
        return last

    return timed


@pytest.fixture
def time_rung(timed, benchmark, dense):
    """``time_rung(rung, product)`` proves a `Rung` on small dense operands, and on the product's
    own, then times it there. The test is skipped if the rung lacks something on this machine, or
    would take too long."""
    threads = torch.get_num_threads()

    def time_rung(rung, product):
        benchmark.extra_info |= {"rung": rung.name, "shape": str(product.shape)}
        if (same := rung.whose_code(product.shape)) is not rung:
            benchmark.extra_info["same_as"] = same.name
        prove(rung, dense)
        assert torch.get_num_threads() == threads, "it has changed torch's number of threads"
        a, b = on_device(rung.device, product.a, product.b)
        if product.shape.flops > SMALL.flops:
            seconds = expected_time(rung.fn, a, b)
            if seconds > SKIP_ABOVE:  # unless something has disturbed that
                seconds = min(seconds, expected_time(rung.fn, a, b))
            if seconds > SKIP_ABOVE:
                pytest.skip(f"it would take about {seconds:,.0f} s")
        forget_compilations()
        timed(product.check, rung.fn, a, b)

    yield time_rung
    torch.set_num_threads(threads)  # whatever a rung has done to it


def prove(rung, product):
    """Raise AssertionError unless a rung computes the product anew, and leaves its operands alone."""
    a, b = on_device(rung.device, product.a.clone(), product.b.clone())
    c = call_or_skip(rung.fn, a, b)
    product.check(c)
    unchanged = torch.equal(a.cpu(), product.a) and torch.equal(b.cpu(), product.b)
    assert unchanged, "it has changed its operands"
    assert rung.fn(a, b).data_ptr() != c.data_ptr(), "it returns the same memory twice"


def forget_compilations():
    """Let torch.compile start anew: it gives up on a function after so many shapes (8)."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


def call_or_skip(fn, *args):
    """Return ``fn(*args)``; skip the test if it raises ImportError, for what is missing here."""
    try:
        return fn(*args)
    except ImportError as error:
        pytest.skip(str(error).partition("\n")[0])


def need_memory(shape):
    """Skip the test unless the operands and the proof of such a product can be allocated."""
    m, k, n = shape.m, shape.k, shape.n
    operands = 4 * (m * k + k * n)
    as_float64 = 16 * (min(m, 50_000) * k + k * n)
    results = 32 * m * n
    size, free = operands + as_float64 + results, free_memory()
    if size > free:
        pytest.skip(f"it needs {size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")


def expected_time(fn, a, b):
    """Return about how long fn(a, b) takes in seconds, from products that take less.

    First it multiplies ever larger corners of the operands, until one takes long enough to tell
    the time of a row of a. Then it times as many whole rows as PROBE allows, with all of b, and
    scales that up.
    """
    corner, fixed = 1, math.inf  # seconds that don't grow with the operands
    while True:
        part = a[:corner, :corner].contiguous(), b[:corner, :corner].contiguous()
        seconds = shortest_of_two(fn, *part)
        fixed = min(fixed, seconds)
        growing = seconds - fixed
        if growing > PROBE or corner >= max(*a.shape, b.shape[1]) or fixed > SKIP_ABOVE:
            break
        corner *= 2
    if fixed > SKIP_ABOVE:
        return fixed
    parts_of_a_row = b.numel() / part[1].numel()
    a_row = max(growing / len(part[0]) * parts_of_a_row, 1e-9)
    rows = int(PROBE / a_row)
    if not 1 <= rows < len(a):
        return fixed + a_row * len(a)
    seconds = shortest_of_two(fn, a[:rows].contiguous(), b)
    return fixed + max(0, seconds - fixed) / rows * len(a)


def shortest_of_two(fn, *args):
    return min(clocked(fn, *args)[0] for _ in range(2))  # something may disturb one of them


# ---- At the end of a run, when nothing is timed any more ----------------------------


def time_noisy_again(config):
    """Time again what was noisy, as far as `AGAIN` allows; the better of the two stands."""
    left = AGAIN
    for measurement in config.stash.get(measurements, []):
        old = measurement.benchmark.stats
        cost = old.stats.total * old.iterations
        if not measurement.is_noisy or cost > left:
            continue
        left -= cost
        new, timer, waiting = type(old.stats)(), old.options["timer"], Waiting()
        with warnings.catch_warnings(action="ignore"):
            for _ in range(old.stats.rounds):
                start = timer()
                for _ in range(old.iterations):
                    result = measurement.fn(*measurement.args)
                new.update((timer() - start) / old.iterations)
        measurement.check(result)
        if new.median < old.stats.median:
            old.stats = new
            old.extra_info |= {"waited": waiting.share(), "timed_again": True}


class TorchCalls(TorchDispatchMode):
    """Counts the operations of torch that are called inside it."""

    count = 0

    @classmethod
    def _should_skip_dynamo(cls):  # or torch imports its compiler, which takes seconds
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def count_torch_calls(config):
    """Note how many operations of torch each rung of the CPU asks for in a small product.

    Only now: torch.compile leaves a function that has been called in such a mode uncompiled.
    """
    for measurement in config.stash.get(measurements, []):
        info = measurement.benchmark.extra_info
        on_cpu = all(isinstance(x, torch.Tensor) and x.is_cpu for x in measurement.args)
        if "rung" in info and on_cpu and Shape.parse(info["shape"]).flops <= SMALL.flops:
            with TorchCalls() as calls:
                measurement.fn(*measurement.args)
            info["torch_calls"] = calls.count
