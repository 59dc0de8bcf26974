"""The rule of the suite: nothing is timed before it is shown to be right."""

import math
import warnings
from functools import partial
from time import perf_counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ladder.gpu import has_gpu, on_device
from ladder.machine import free_memory, waited
from ladder.result import Result
from ladder.rungs import RUNGS
from ladder.shape import SMALL

ONCE_ABOVE = 0.25  # seconds; a call that takes longer is timed once
SKIP_ABOVE = 10  # seconds; a rung that would take longer is not timed
PROBE = 0.05  # seconds; a call that takes longer says how long a larger product takes
CALLS_ON_A_GPU = 20  # in a row, before one wait for the last
timed_rungs = pytest.StashKey()  # {(rung, shape): benchmark}


def clocked(fn, *args):
    """Return how long a call takes, to its end on the GPU if there is one, and its result."""
    wait = torch.cuda.synchronize if has_gpu() else lambda: None
    wait()
    start, result = perf_counter(), fn(*args)
    wait()
    return perf_counter() - start, result


@pytest.fixture
def timed(benchmark, request):
    """``timed(group, check, fn, *args)``: time fn, which is compiled, only if ``check`` takes its
    result, and returns None or what is true. Keyword arguments are saved with the times."""

    def timed(group, check, fn, *args, **extra_info):
        def prove(result):
            assert (right := check(result)) is None or right, f"{group}: wrong: {str(result)[:200]}"

        benchmark.group = group
        benchmark.extra_info.update(extra_info)
        seconds, result = clocked(fn, *args)
        prove(result)
        if benchmark.disabled:
            return benchmark.pedantic(lambda: None)  # it has been called and checked
        benchmark.has_error = True  # until the last result has been proved, too
        before, start = waited(), perf_counter()
        with warnings.catch_warnings(action="ignore"):  # the check has let them be shown
            if seconds > ONCE_ABOVE:
                last = benchmark.pedantic(fn, args)
            elif extra_info.get("device") == "cuda":
                most = float(request.config.getoption("benchmark_max_time"))
                rounds = min(max(5, int(most / (CALLS_ON_A_GPU * seconds))), 1000)
                counts = {"rounds": rounds, "iterations": CALLS_ON_A_GPU}
                last = benchmark.pedantic(fn, args, warmup_rounds=1, **counts)
            else:
                last = benchmark(fn, *args)
        longest = max((s - before.get(thread, 0) for thread, s in waited().items()), default=0)
        benchmark.extra_info["waited"] = longest / (perf_counter() - start)
        prove(last)
        benchmark.has_error = False

    return timed


def need_memory(m, k, n):
    """Skip the test unless the operands and the proof of such a product can be allocated."""
    size = 4 * (m * k + k * n) + 16 * (min(m, 50_000) * k + k * n) + 32 * m * n  # bytes
    if size > (free := free_memory()):
        pytest.skip(f"it needs {size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")


class TorchCalls(TorchDispatchMode):
    """Counts the operations of torch that are called inside it."""

    count = 0

    @classmethod
    def _should_skip_dynamo(cls):  # or torch imports its compiler, in seconds
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def expected_time(fn, a, b):
    """Return about how long fn(a, b) takes in seconds, from growing parts of the operands."""
    size, shape, fixed = 1, (*a.shape, b.shape[1]), math.inf  # seconds that don't grow with them
    while True:
        part = a[:size, :size].contiguous(), b[:size, :size].contiguous()
        seconds = min(clocked(fn, *part)[0] for _ in range(2))  # one of them may be disturbed
        fixed = min(fixed, seconds)
        if seconds - fixed > PROBE or size >= max(shape) or fixed > SKIP_ABOVE:
            more = math.prod(shape) / math.prod(min(size, x) for x in shape)
            return fixed + (seconds - fixed) * more
        size *= 2


def call_or_skip(fn, *args):
    """Return ``fn(*args)``; skip the test if it raises ImportError, for what is missing here."""
    try:
        return fn(*args)
    except ImportError as error:
        pytest.skip(str(error).partition("\n")[0])


@pytest.fixture
def time_rung(timed, benchmark, dense, request):
    """``time_rung(group, name, product)``: check the rung of this name on dense operands (which
    compiles it, too) and on the product's own, then time it; in another group, repeat that time."""

    def time_rung(group, name, product):
        rung, done = RUNGS[name], request.config.stash.setdefault(timed_rungs, {})
        result = Result.of(rung, product.shape)
        if (earlier := done.get((name, result.shape))) and not benchmark.disabled:
            benchmark.group = group
            benchmark.extra_info.update(earlier.extra_info)
            benchmark.pedantic(lambda: None)
            benchmark.stats.stats = earlier.stats.stats
            benchmark.stats.iterations = earlier.stats.iterations
            return

        place = partial(on_device, rung.device)
        a, b = (x.clone() for x in place(dense.a, dense.b))
        dense.check(c := call_or_skip(rung.fn, a, b))
        assert all(map(torch.equal, (a, b), place(dense.a, dense.b))), "it has changed its operands"
        assert rung.fn(a, b).data_ptr() != c.data_ptr(), "it returns the same memory twice"
        assert torch.get_num_threads() == threads, "it has changed torch's number of threads"
        a, b = place(product.a, product.b)
        small = result.flops <= Result.of(rung, SMALL).flops
        if not small and (seconds := expected_time(rung.fn, a, b)) > SKIP_ABOVE:
            pytest.skip(f"it would take about {seconds:,.0f} s")
        if small and not benchmark.disabled:
            with TorchCalls() as calls:
                rung.fn(a, b)
            result.calls = calls.count
        timed(group, product.check, rung.fn, a, b, **result.written())
        done[name, result.shape] = benchmark

    threads = torch.get_num_threads()
    yield time_rung
    torch.set_num_threads(threads)  # whatever a rung has done to it
