"""The GPU's rungs beyond the course: what the simulator and the compiler can show of them."""

from fnmatch import fnmatch

import numpy as np
import pytest
import torch

from beyond.gpu import addresses, copies, launch, resident, simulator
from beyond.gpu.tile import tile
from ladder.gpu import SIMULATED
from ladder.rungs import RUNGS
from ladder.shape import Shape

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("gpu_or_simulator")]
simulator_only = pytest.mark.skipif(not SIMULATED, reason="for Numba's simulator only")

BY_ADDRESS = [
    name
    for name, rung in RUNGS.items()
    if rung.fn.__module__.startswith("beyond.gpu.") and name != "matmul_triton"
]


# ---- In the simulator --------------------------------------------------------------


class Noted(simulator.Floats):
    """Floats that note which of them are stored to."""

    made = []

    def __init__(self, array):
        super().__init__(array)
        self.stored = []
        self.made.append(self)

    def __setitem__(self, i, x):
        super().__setitem__(i, x)
        self.stored.append(i)


@simulator_only
@pytest.mark.parametrize("rung", BY_ADDRESS)
def test_each_cell_is_stored_once(monkeypatch, rung):
    """By one thread of all: what two of them store might differ, and takes twice the time."""
    monkeypatch.setattr(simulator, "Floats", Noted)
    for m, k, n in (9, 12, 11), (18, 5, 3):
        Noted.made.clear()
        RUNGS[rung].fn(torch.ones(m, k), torch.ones(k, n))
        a, b, c = Noted.made[:3]  # the others are shared memory
        assert (a.stored, b.stored, sorted(c.stored)) == ([], [], list(range(m * n)))


REFUSED = {
    "read before the first": lambda floats: floats[-1],
    "read after the last": lambda floats: floats[8],
    "store after the last": lambda floats: floats.__setitem__(8, 0),
    "load four after the last": lambda floats: simulator.load_4(floats, 8),
    "load four between": lambda floats: simulator.load_4(floats, 2),
    "copy four between": lambda floats: simulator.start_copy_4(floats, 6, floats, 0),
}


@pytest.mark.parametrize("access", REFUSED)
def test_the_simulator_refuses(access):
    """An index out of bounds, or four floats that don't begin at a multiple of 16 bytes."""
    with pytest.raises(IndexError, match=r"floats from -?\d on, of 8"):
        REFUSED[access](simulator.Floats(np.zeros(8, np.float32)))


def test_the_simulator_copies_late():
    """What a kernel hasn't waited for has not arrived."""
    to, floats = (simulator.Floats(np.full(4, x, np.float32)) for x in (0, 1))
    simulator.start_copy_4(to, 0, floats, 0)
    simulator.commit_group()
    simulator.wait_group(1)
    assert to[3] == 0
    simulator.wait_group(0)
    assert to[3] == 1


@simulator_only
def test_several_steps():
    """A lane takes four steps for its rows, a block comes to rows a second time: stages are reused."""
    warp_k, block_rows = 4 * simulator.WARP, 4 * copies.MORE_WARPS
    m, k = 2 * block_rows + 3, 3 * warp_k + 4
    a, b = torch.arange(float(m * k)).view(m, k) % 7, torch.arange(float(k)).view(k, 1) % 5
    assert torch.equal(copies.matmul_cuda_async(a, b), a @ b)


OWN = ["launch", "coalesced", "shared", "tile", "vector", "reduce", "async"]
RUNS = {  # whose code each rung runs, by K
    12: OWN,
    5: ["launch", "coalesced", "shared", "tile", "tile", "tile", "tile"],  # 20 bytes a row
    1230: ["launch", *["coalesced"] * 6],  # b doesn't fit into shared memory
    1228: ["launch", "coalesced", "shared", "tile", "vector", "reduce", "reduce"],  # a doesn't, too
}


@simulator_only
@pytest.mark.parametrize("k", RUNS)
def test_a_rung_says_whose_code_it_runs(monkeypatch, k):
    """`Rung.whose_code` names the rung whose kernel is launched, too."""
    launched = {}

    def note(kernel, a, b, configuration):
        if configuration is None:
            return None
        launched[name] = kernel
        return a.new_empty(len(a), b.shape[1])

    monkeypatch.setattr(simulator, "launch", note)
    for name in OWN:
        RUNGS[f"matmul_cuda_{name}"].fn(torch.ones(3, k), torch.ones(k, 2))
    runs = [RUNGS[f"matmul_cuda_{name}"].whose_code(Shape(3, k, 2)).name for name in OWN]
    assert runs == [f"matmul_cuda_{name}" for name in RUNS[k]]
    assert [launched[name] for name in OWN] == [launched[name] for name in RUNS[k]]
    assert len(set(launched.values())) == len(set(RUNS[k]))


# ---- The grid ----------------------------------------------------------------------


@simulator_only
def test_no_more_blocks_than_the_gpu_holds(monkeypatch):
    """They are divided among the groups of ten columns, each of which has one at least."""
    monkeypatch.setattr(resident, "most_blocks", lambda *args: 8)
    grids = {n: tile.configure(1000, 12, n)[0] for n in (1, 10, 11, 30, 90, 2_000_000)}
    assert grids == {
        1: (1, 8), 10: (1, 8), 11: (2, 4), 30: (3, 2), 90: (9, 1), 2_000_000: (200_000, 1),
    }  # fmt: skip
    rows = tile.rows * tile.warps
    assert [tile.configure(m, 12, 1)[0] for m in (1, rows, rows + 1)] == [(1, 1), (1, 1), (1, 2)]


def test_columns_beyond_the_grid(monkeypatch):
    """A grid has at most 65,535 blocks in its second dimension."""
    assert launch.configure_cells(17, 1, 2_000_000)[0] == (2, 65_535)
    if SIMULATED:
        monkeypatch.setattr(launch, "MOST_BLOCKS", 1)
        a, b = torch.ones(2, 3), torch.arange(120.0).view(3, 40)
        assert torch.equal(launch.matmul_cuda_launch(a, b), a @ b)


# ---- What is refused, and what is missing ----------------------------------------------

A, B = torch.ones(2, 3), torch.ones(3, 4)


@pytest.mark.parametrize("a, b, simulated", [
    (A.double(), B.double(), True), (A, B.double(), True), (A, A, True), (A, B, False),
])  # fmt: skip
def test_what_an_address_does_not_tell(monkeypatch, a, b, simulated):
    monkeypatch.setattr(addresses, "SIMULATED", simulated)
    monkeypatch.setattr(addresses, "MISSING", "")
    with pytest.raises(ValueError, match=r"takes float32 .* \(K, N\) on one GPU, not "):
        addresses.launch(launch.cell_kernel, a, b, launch.configure_cells)


# In a process of its own: what is installed there, and what each rung says of it.
SAY_WHAT_IS_MISSING = """
import sys
from types import ModuleType
import numba.cuda
numba_cuda, core = ModuleType("numba_cuda"), ModuleType("cuda.core")
numba_cuda.__file__ = numba.cuda.__file__
core.Device = core.LaunchConfig = core.Stream = core.launch = None
cuda = ModuleType("cuda")
cuda.core = core
modules = {"numba_cuda": numba_cuda, "cuda": cuda, "cuda.core": core}
import importlib.metadata
versions = {"numba-cuda": "0.30.4", "numpy": "2.4.6"}
importlib.metadata.version = lambda name: versions.get(name, "1")
{what}
sys.modules.update(modules)
import torch, beyond
from ladder.rungs import RUNGS
from ladder.shape import SMALL
for name in {rungs}:
    assert RUNGS[name].whose_code(SMALL).name == name
    try:
        RUNGS[name].fn(torch.ones(2, 3), torch.ones(3, 4))
    except ImportError as error:
        print(error)
"""
MISSING = {
    'modules["numba_cuda"] = None': "numba-cuda is missing, or too old (*numba_cuda*): install*",
    "del core.launch": "numba-cuda is missing, or too old (*'launch'*): install requirements-cuda*",
    'modules["cuda.core"] = None': "numba-cuda is missing, or too old (*cuda.core*): install*",
    'numba_cuda.__file__ = "/elsewhere/__init__.py"': "numba.cuda is Numba's own, though numba-cuda*",
    'versions["numpy"] = "2.5.0"': "numba-cuda 0.30.4 doesn't work with numpy 2.5.0: install*",
}


@pytest.mark.parametrize("what", MISSING)
def test_all_rungs_give_one_reason(python, what):
    code = SAY_WHAT_IS_MISSING.replace("{what}", what).replace("{rungs}", str(BY_ADDRESS))
    status, output, errors = python("-c", code, NUMBA_ENABLE_CUDASIM="0")
    assert status == 0, errors
    reasons = output.splitlines()
    assert reasons == reasons[:1] * len(BY_ADDRESS)
    assert fnmatch(reasons[0], MISSING[what])


# ---- What the compiler makes of the kernels ----------------------------------------------

COMPILE = """
from importlib import import_module
from types import SimpleNamespace
import numba.cuda
from numba import cuda, float32
from numba.cuda import dispatcher
import beyond, kernels
from beyond.gpu.addresses import ADDRESSES
try:
    from cuda.bindings import nvjitlink
    from numba_cuda import __version__
except ImportError:
    nvjitlink = None

# A kernel's device functions are compiled for the current device; there is none.
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(8, 0))


def ptx_of(kernel, takes):
    if not nvjitlink:
        return cuda.compile_ptx(kernel.py_func, takes, cc=(8, 0))[0]
    bounds = kernel.targetoptions.get("launch_bounds")
    options = {"cc": (8, 0), "device": False, "abi": "numba", "launch_bounds": bounds}
    code, _ = cuda.compile(kernel.py_func, takes, output="ltoir", **options)
    linker = nvjitlink.create(3, ["-arch=sm_80", "-lto", "-ptx"])
    nvjitlink.add_data(linker, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
    nvjitlink.complete(linker)
    ptx = bytearray(nvjitlink.get_linked_ptx_size(linker))
    nvjitlink.get_linked_ptx(linker, ptx)
    return ptx.decode()


files = "launch", "coalesced", "shared", "tile", "vector", "reduce", "copies"
for module in [kernels] + [import_module(f"beyond.gpu.{file}") for file in files]:
    for name, kernel in vars(module).items():
        if name.endswith("_kernel") and isinstance(kernel, dispatcher.CUDADispatcher):
            takes = (float32[:, ::1],) * 3 if name == "matmul_kernel" else ADDRESSES
            ptx = ptx_of(kernel, takes)
            features = "__local_depot", ".f64", "ld.global.v4.f32", "cp.async.cg.shared.global"
            print(name, *(feature for feature in features if feature in ptx))
"""


def test_compiles(python):
    """In a process without the simulator: no sum is in memory, none is float64 beyond the course's,
    loads are wide and copies asynchronous where a rung says so.

    With numba-cuda and nvJitLink, that is the code as linked for a GPU (in PTX, before registers
    are assigned); with Numba's own compiler, what it would hand to the driver.
    """
    status, output, errors = python("-c", COMPILE, NUMBA_ENABLE_CUDASIM="0")
    if "NvvmSupportError" in errors:
        pytest.skip("there is no libNVVM")
    assert (status, output.splitlines()) == (0, [
        "matmul_kernel .f64", "cell_kernel .f64", "coalesced_kernel", "shared_kernel",
        "tile_kernel", "vector_kernel ld.global.v4.f32", "reduce_kernel ld.global.v4.f32",
        "async_kernel cp.async.cg.shared.global",
    ]), errors  # fmt: skip
