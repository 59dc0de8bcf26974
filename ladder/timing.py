"""The rule of the suite: nothing is timed before it is shown to be right."""

import math
import warnings
from time import perf_counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ladder.gpu import has_gpu, why_not
from ladder.machine import free_memory, waited
from ladder.result import Result
from ladder.rungs import RUNGS

ONCE_ABOVE = 0.25  # seconds; a call that takes longer is timed once
NOT_COMPILING_ABOVE = 3  # seconds; a first call longer than this is slow itself: don't repeat it
SKIP_ABOVE = 10  # seconds; a rung that would take longer is not timed
PROBE = 0.05  # seconds; a call that takes longer says how long a larger product takes
CALLS_ON_A_GPU = 20  # in a row, before one wait for the last
timed_rungs = pytest.StashKey()


def clocked(fn, *args):
    """Return how long a call takes, to its end on the GPU if there is one, and its result."""
    if has_gpu():
        torch.cuda.synchronize()
    start = perf_counter()
    result = fn(*args)
    if has_gpu():
        torch.cuda.synchronize()
    return perf_counter() - start, result


@pytest.fixture
def timed(benchmark):
    """``timed(group, check, fn, *args)``: pass fn's result to ``check``, and only then time fn.

    Keyword arguments are saved as the benchmark's ``extra_info``.
    """

    def timed(group, check, fn, *args, **extra_info):
        benchmark.group = group
        benchmark.extra_info.update(extra_info)
        seconds, result = clocked(fn, *args)
        check(result)
        if benchmark.disabled:
            return benchmark.pedantic(lambda: None)  # it has been called and checked
        if ONCE_ABOVE < seconds < NOT_COMPILING_ABOVE:
            seconds, _ = clocked(fn, *args)
        waiting, start = waited(), perf_counter()
        with warnings.catch_warnings(action="ignore"):  # the check has let them be shown
            if seconds > ONCE_ABOVE:
                benchmark.pedantic(fn, args)
            elif extra_info.get("device") == "cuda":
                rounds = int(benchmark._max_time / (CALLS_ON_A_GPU * seconds))
                calls = {"rounds": min(max(rounds, 5), 1000), "iterations": CALLS_ON_A_GPU}
                benchmark.pedantic(fn, args, warmup_rounds=1, **calls)
            else:
                benchmark(fn, *args)
        benchmark.extra_info["waited"] = (waited() - waiting) / (perf_counter() - start)

    return timed


def need_memory(size):
    """Skip the test unless so many bytes can be allocated."""
    if size > (free := free_memory()):
        pytest.skip(f"it needs {size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")


class TorchCalls(TorchDispatchMode):
    """Counts the operations of torch that are called inside it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def expected_time(fn, a, b):
    """Return about how long fn(a, b) takes in seconds, from growing parts of the operands.

    A call's fixed cost does not grow with them, so the part has to be large enough.
    """
    sizes, whole = [5, 784, 10], [*a.shape, b.shape[1]]
    while True:
        m, k, n = sizes = [min(pair) for pair in zip(sizes, whole, strict=True)]
        part = a[:m, :k].contiguous(), b[:k, :n].contiguous()
        seconds, _ = clocked(fn, *part)
        if seconds > PROBE:  # not for the sake of one disturbed call
            seconds = min(seconds, *(clocked(fn, *part)[0] for _ in range(2)))
        if seconds > PROBE or sizes == whole:
            return seconds * math.prod(whole) / max(1, math.prod(sizes))
        sizes = [2 * size for size in sizes]


@pytest.fixture
def time_rung(timed, benchmark, dense, small_product, request):
    """``time_rung(group, name, product)``: check the rung of this name on dense operands (which
    compiles it, too) and on the product's own, then time it, once for all groups."""

    def time_rung(group, name, product):
        rung, done = RUNGS[name], request.config.stash.setdefault(timed_rungs, {})
        on_gpu = rung.device == "cuda" and has_gpu()
        if rung.device == "cuda" and (reason := why_not(name)):
            pytest.skip(reason)

        def operands(product):
            return [x.cuda() if on_gpu else x.clone() for x in (product.a, product.b)]

        a, b = operands(dense)
        dense.check(rung.fn(a, b))
        assert all(map(torch.equal, (a, b), operands(dense))), f"{name} has changed its operands"
        a, b = (x.cuda() if on_gpu else x for x in (product.a, product.b))
        versions = a._version, b._version
        small = len(a) * b.numel() <= 5 * small_product.b.numel()

        def check(c):
            product.check(c)
            assert (a._version, b._version) == versions, f"{name} has changed its operands"

        result = Result.of(rung, f"{len(a)}x{len(b)}x{b.shape[1]}")
        if (earlier := done.get((name, result.shape))) and not benchmark.disabled:
            return repeat(earlier, benchmark, group)
        if not small and (seconds := expected_time(rung.fn, a, b)) > SKIP_ABOVE:
            pytest.skip(f"it would take about {seconds:,.0f} s")
        if small and not benchmark.disabled:
            with TorchCalls() as calls:
                c = rung.fn(a, b)
            check(c)
            result.calls = calls.count
        timed(group, check, rung.fn, a, b, **result.written())
        done[name, result.shape] = benchmark

    return time_rung


def repeat(earlier, benchmark, group):
    """Let ``benchmark`` have measured what an earlier one has: one number for one rung and shape."""
    benchmark.group, benchmark._mode = group, "repeat"
    benchmark.extra_info.update(earlier.extra_info)
    stats = benchmark._make_stats(earlier.stats.iterations)
    for seconds in earlier.stats.stats.data:
        stats.stats.update(seconds)
