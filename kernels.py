"""Matrix multiplication from the foundations, as fast.ai's course builds it up.

Read it from top to bottom: MNIST is loaded with the standard library, cut into chunks and
wrapped in a Matrix; a random number generator is written; then one matrix product climbs
a ladder of rungs, from three Python loops to a GPU. A rung is a function ``(a, b) -> c``
on float32 torch tensors of shapes (M, K), (K, N) and (M, N); the decorator above it puts
it into `RUNGS`, from which tests, tables and figures take it.

The lesson: notebook 01_matmul of fastai/course22p2.
"""

import gzip
import hashlib
import io
import math
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numba
import numpy as np
import torch
from fastcore.net import urlopen
from numba import cuda, njit

# ---- Get data ----------------------------------------------------------------------

MNIST_URL = (
    "https://github.com/mnielsen/neural-networks-and-deep-learning"
    "/blob/master/data/mnist.pkl.gz?raw=true"
)
MNIST_BYTES = 17_051_982
MNIST_BLOB = "059aba0d982e20e2ac125a3a59d89c3c2cd8b28a"
UNPACKED_LIMIT = 2**30
OPCODE_LIMIT = 10_000


def download_mnist(dest, url=MNIST_URL, timeout=10.0):
    """Download the course's MNIST file to the path ``dest`` and return that path.

    ``dest`` appears whole or not at all: the content is checked against the course's
    file (17,051,982 bytes and its git blob id), written to a temporary file beside
    ``dest``, and renamed. ``timeout`` is how many seconds the server may be silent; the
    whole download may take 60 times as long. A terminal sees the progress.

    Raises ValueError if the content is not the course's file, and OSError (to which
    TimeoutError and URLError belong) if it can't be fetched or written.
    """
    dest = Path(dest)
    dest.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(dest.parent, os.W_OK):
        raise PermissionError(f"{dest.parent}: this folder can't be written to")
    content = _fetch(url, timeout)
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if blob != MNIST_BLOB:
        raise ValueError(
            f"{url}: not the course's file ({MNIST_BYTES:,} bytes, git blob id "
            f"{MNIST_BLOB}), but {len(content):,} bytes or more, git blob id {blob}"
        )
    handle, part = tempfile.mkstemp(".part", f"{dest.name}.", dest.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)
        os.replace(part, dest)
    except BaseException:
        os.unlink(part)
        raise
    return dest


def _fetch(url, timeout):
    content, deadline = bytearray(), time.monotonic() + 60 * timeout
    with urlopen(url, timeout=timeout) as response:
        while len(content) <= MNIST_BYTES and (block := response.read1(2**16)):
            content += block
            if sys.stderr.isatty():
                done = f"{len(content) / 1e6:.1f} of {MNIST_BYTES / 1e6:.1f} MB"
                end = "" if len(content) < MNIST_BYTES else "\n"
                print(f"\rMNIST: {done}", end=end, file=sys.stderr)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url}: not complete after {60 * timeout:.0f} s")
    return content


def load_mnist(path):
    """Return ``((x_train, y_train), (x_valid, y_valid), (x_test, y_test))`` from a file.

    The file is a gzipped pickle. Images are float32 arrays of shape (n, 784) with values
    in [0, 1), labels int64 arrays of shape (n,) with values 0 to 9; n is 5 or more.
    Nothing in the file is executed: see `ArrayUnpickler`.

    Raises OSError if the file can't be read, ValueError if it holds anything else.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a file")
    with open(path, "rb") as file:
        try:
            pickled = _gunzip(file)
            mnist = _check_mnist(ArrayUnpickler(pickled).load())
            if pickled.read(1):
                raise ValueError("something follows the pickle")
        except Exception as error:
            raise ValueError(
                f"{path}: damaged, or not MNIST as the course has it "
                f"({type(error).__name__}: {str(error)[:200]})"
            ) from error
    return mnist


def _gunzip(file):
    unpacked = io.BytesIO()
    with gzip.open(file) as packed:
        while block := packed.read(2**20):
            unpacked.write(block)
            if unpacked.tell() > UNPACKED_LIMIT:
                raise ValueError(f"it unpacks to more than {UNPACKED_LIMIT:,} bytes")
    unpacked.seek(0)
    return unpacked


def _check_mnist(parts):
    def array(item):
        if not isinstance(item, PickledArray):
            raise ValueError("expected three pairs of arrays")
        return item.array

    (a, b), (c, d), (e, f) = parts
    mnist = tuple((array(x), array(y)) for x, y in ((a, b), (c, d), (e, f)))
    for name, (x, y) in zip(("train", "valid", "test"), mnist, strict=True):
        n = len(x)
        if x.dtype != np.float32 or x.shape != (n, 784) or n < 5:
            raise ValueError(
                f"x_{name} is {x.dtype} {x.shape}, not float32 (5 or more, 784)"
            )
        if y.dtype != np.int64 or y.shape != (n,):
            raise ValueError(f"y_{name} is {y.dtype} {y.shape}, not int64 ({n},)")
        if not (x.min() >= 0 and x.max() < 1):
            raise ValueError(f"x_{name} has values outside of [0, 1)")
        if not (y.min() >= 0 and y.max() <= 9):
            raise ValueError(f"y_{name} has labels other than 0 to 9")
    return mnist


class PickledDtype:
    """Stands in for numpy.dtype while a pickle is read: float32 or int64."""

    def __init__(self, name, *flags):
        self.name, self.order = name, "<"

    def __setstate__(self, state):
        self.order = state[1]

    def dtype(self):
        if self.name not in ("f4", "i8") or self.order not in ("<", ">"):
            raise ValueError(f"an array of {self.order}{self.name}, not of f4 or i8")
        return np.dtype(self.order + self.name)


class PickledArray:
    """Stands in for numpy.ndarray while a pickle is read; ``array`` is what it held."""

    def __init__(self, *empty_array):
        self.array = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        if isinstance(content, str):
            content = content.encode("latin-1")
        values = np.frombuffer(content, dtype.dtype())
        values = values.reshape(shape, order="F" if fortran else "C")
        self.array = values.astype(values.dtype.newbyteorder("="), order="C")


def _counted(load):
    def load_counted(unpickler):
        unpickler.opcodes += 1
        if unpickler.opcodes > OPCODE_LIMIT:
            raise pickle.UnpicklingError(f"more than {OPCODE_LIMIT:,} opcodes")
        load(unpickler)

    return load_counted


def _refuse(unpickler):
    raise pickle.UnpicklingError("an opcode that has no place in a pickled array")


class ArrayUnpickler(pickle._Unpickler):
    """Unpickles tuples of float32 and int64 arrays, and refuses all else before it runs.

    The four names that pickled arrays need (in their old and new spellings) lead to
    stand-ins that only record what they are given; the opcodes are those that Python 2
    and 3 write for such a pickle in the protocols 0 to 4. The base is the standard
    library's unpickler in Python: the one in C lets a file take any amount of memory.
    """

    NAMES = {
        ("numpy.core.multiarray", "_reconstruct"): PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): PickledArray,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): PickledDtype,
        ("_codecs", "encode"): lambda text, latin1: text.encode("latin-1"),
    }
    OPCODES = """
        PROTO MARK STOP GLOBAL STACK_GLOBAL REDUCE BUILD TUPLE TUPLE1 TUPLE2 TUPLE3
        PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE
        INT BININT BININT1 BININT2 LONG LONG1 STRING BINSTRING SHORT_BINSTRING UNICODE
        BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    """.split()
    dispatch = dict.fromkeys(range(256), _refuse)
    for _name in OPCODES:
        _code = getattr(pickle, _name)[0]
        dispatch[_code] = _counted(pickle._Unpickler.dispatch[_code])
    dispatch[pickle.FRAME[0]] = _counted(lambda unpickler: unpickler.read(8))

    def __init__(self, file):
        super().__init__(file, encoding="latin-1")
        self.opcodes = 0

    def find_class(self, module, name):
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in an array")
        return self.NAMES[module, name]


def chunks(x, sz):
    """Yield the consecutive slices of the sequence ``x`` of length ``sz`` (the last may be shorter)."""
    _check_chunk_size(sz)
    for i in range(0, len(x), sz):
        yield x[i : i + sz]


def islice_chunks(x, sz):
    """Yield the same as `chunks`, as lists, from any iterable: islice until it is empty."""
    _check_chunk_size(sz)
    it = iter(x)
    yield from iter(lambda: list(islice(it, sz)), [])


def _check_chunk_size(sz):
    if sz < 1:
        raise ValueError(f"a chunk holds at least 1 item, not {sz}")


class Matrix:
    """Wraps a list of rows, so that ``m[i, j]`` is the item in row i, column j."""

    def __init__(self, xs):
        self.xs = xs

    def __getitem__(self, idxs):
        return self.xs[idxs[0]][idxs[1]]


# ---- Random numbers ----------------------------------------------------------------

rnd_state = None


def seed(a):
    """Start the stream of `rand` at the non-negative integer ``a``.

    Wichmann and Hill's generator (1982), as Python had it before version 2.3.
    """
    global rnd_state
    if not isinstance(a, (int, np.integer)) or a < 0:
        raise ValueError(f"a seed is a non-negative integer, not {a!r}")
    a, x = divmod(int(a), 30268)
    a, y = divmod(a, 30306)
    a, z = divmod(a, 30322)
    rnd_state = x + 1, y + 1, z + 1


def rand():
    """Return the next number of the stream, uniform in [0, 1). Call `seed` first."""
    global rnd_state
    if rnd_state is None:
        raise RuntimeError("call seed(a) before the first rand()")
    x, y, z = rnd_state
    x = (171 * x) % 30269
    y = (172 * y) % 30307
    z = (170 * z) % 30323
    rnd_state = x, y, z
    return (x / 30269 + y / 30307 + z / 30323) % 1.0


def forked(draw, timeout=10.0):
    """Fork, and return the number that ``draw()`` gives in the child process.

    A fork copies the state of every generator, so parent and child go on with the same
    numbers unless the child seeds anew. The number comes back through a pipe. A child
    that isn't done after ``timeout`` seconds is killed.

    Raises TimeoutError then, and RuntimeError if ``draw`` fails in the child.
    """
    parent, (reader, writer) = os.getpid(), os.pipe()
    try:
        with warnings.catch_warnings():
            # Python 3.12 and later warn of threads at a fork; the child starts none.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if os.getpid() != parent:
            os.write(writer, _answer(draw))
    finally:
        if os.getpid() != parent:
            os._exit(0)
        os.close(writer)
    try:
        if not select.select([reader], [], [], timeout)[0]:
            raise TimeoutError(f"the child process drew nothing in {timeout} s")
        answer = os.read(reader, select.PIPE_BUF).decode()
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        return float.fromhex(answer)
    except ValueError:
        raise RuntimeError(f"the child process failed: {answer or 'died'}") from None


def _answer(draw):
    try:
        return float(draw()).hex().encode()
    except BaseException as error:
        return f"{type(error).__name__}: {error}".encode()[: select.PIPE_BUF]


# ---- Matrix multiplication ---------------------------------------------------------

SMALL, FULL = "5x784x10", "50000x784x10"


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: ``fn(a, b) -> c``, the named shapes it can bear, its device."""

    name: str
    fn: Callable
    shapes: tuple
    device: str


RUNGS: dict[str, Rung] = {}


def rung(shapes=(SMALL, FULL), device="cpu"):
    """Register the function below as a rung, under its own name, in the order of definition.

    ``shapes`` are the named shapes "MxKxN" on which it is timed (only the small one if
    it is too slow for the full one), ``device`` is "cpu" or "cuda".
    """

    def register(fn):
        if fn.__name__ in RUNGS:
            raise ValueError(f"there already is a rung {fn.__name__}")
        RUNGS[fn.__name__] = Rung(fn.__name__, fn, tuple(shapes), device)
        return fn

    return register


@rung(shapes=[SMALL])
def matmul_loops(a, b):
    """Three Python loops: M*N*K steps, each of which makes four small tensors."""
    (ar, ac), (_, bc) = a.shape, b.shape
    c = torch.zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            for k in range(ac):
                c[i, j] += a[i, k] * b[k, j]
    return c


@njit
def dot(a, b):
    """Return the dot product of two 1-D arrays, summed up in float64."""
    res = 0.0
    for i in range(len(a)):
        res += a[i] * b[i]
    return res


@rung()
def matmul_numba_dot(a, b):
    """The inner loop compiled by Numba: only M*N steps are left in Python."""
    a, b = a.numpy(), b.numpy()
    ar, bc = len(a), b.shape[1]
    c = np.zeros((ar, bc), np.float32)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = dot(a[i, :], b[:, j])
    return torch.from_numpy(c)


def frobenius(m):
    """Return the Frobenius norm of the tensor ``m``: elementwise operations only."""
    return (m * m).sum().sqrt()


@rung()
def matmul_elementwise(a, b):
    """The inner loop as elementwise operations of torch: a product of K floats, then its sum."""
    ar, bc = len(a), b.shape[1]
    c = torch.zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = (a[i, :] * b[:, j]).sum()
    return c


@rung()
def matmul_torch_dot(a, b):
    """torch.dot for the inner loop: product and sum in one call, without K floats in between."""
    ar, bc = len(a), b.shape[1]
    c = torch.zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = torch.dot(a[i, :], b[:, j])
    return c


# ---- Broadcasting ------------------------------------------------------------------


def broadcast_shapes(a, b):
    """Return the shape to which arrays of the shapes ``a`` and ``b`` broadcast.

    From the trailing dimension on, two sizes go together if they are equal or one of
    them is 1; a missing dimension counts as 1. Raises ValueError if they don't.
    """
    shape = []
    for m, n in zip_longest(reversed(a), reversed(b), fillvalue=1):
        if m != n and m != 1 and n != 1:
            raise ValueError(
                f"shapes {tuple(a)} and {tuple(b)} don't broadcast: {m} meets {n}"
            )
        shape.append(n if m == 1 else m)
    return tuple(reversed(shape))


def normalize_loop(x, mean, std):
    """Return ``(x - mean) / std`` for x of shape (n, m) and two scalars, row by row in Python."""
    return torch.stack([(row - mean) / std for row in x])


def normalize_expanded(x, mean, std):
    """The same with both scalars copied to the shape of ``x`` first."""
    mean, std = (s.expand_as(x).contiguous() for s in (mean, std))
    return (x - mean) / std


def normalize_broadcast(x, mean, std):
    """The same by broadcasting: both scalars are read in place, nothing is copied."""
    return (x - mean) / std


def outer_loop(c, d):
    """Return the outer product (n, m) of c (n,) and d (m,), element by element in Python."""
    return torch.tensor([[x * y for y in d.tolist()] for x in c.tolist()])


def outer_expanded(c, d):
    """The same with both vectors copied to the shape of the result first."""
    shape = len(c), len(d)
    return c[:, None].expand(shape).contiguous() * d[None].expand(shape).contiguous()


def outer_broadcast(c, d):
    """The same by broadcasting a column over a row."""
    return c[:, None] * d[None]


@rung()
def matmul_broadcast(a, b):
    """Each row of a, as a column, broadcast over b: M steps in Python, K*N floats in between."""
    ar, bc = len(a), b.shape[1]
    c = torch.zeros(ar, bc)
    for i in range(ar):
        c[i] = (a[i, :, None] * b).sum(dim=0)
    return c


@rung()
def matmul_einsum(a, b):
    """Einstein summation: no loop in Python; torch hands the product to its BLAS."""
    return torch.einsum("ik,kj->ij", a, b)


@rung()
def matmul_torch(a, b):
    """torch.matmul: the same BLAS without einsum's parsing."""
    return torch.matmul(a, b)


# ---- CUDA --------------------------------------------------------------------------

TPB = 16


def matmul_cell(grid, a, b, c):
    """What one GPU thread does, as a plain Python function: cell (i, j) of c = a @ b."""
    i, j = grid
    if i < c.shape[0] and j < c.shape[1]:
        tmp = 0.0
        for k in range(a.shape[1]):
            tmp += a[i, k] * b[k, j]
        c[i, j] = tmp


def launch_kernel(kernel, grid_x, grid_y, *args, **kwargs):
    """Call ``kernel((i, j), *args, **kwargs)`` for each cell of a grid, one after the other."""
    for i in range(grid_x):
        for j in range(grid_y):
            kernel((i, j), *args, **kwargs)


@rung(shapes=[SMALL])
def matmul_launch_kernel(a, b):
    """The GPU's way of thinking in Python loops: as slow as `matmul_loops`."""
    c = torch.zeros(a.shape[0], b.shape[1])
    launch_kernel(matmul_cell, *c.shape, a, b, c)
    return c


@cuda.jit
def matmul_kernel(a, b, c):
    """`matmul_cell`, line for line, for the GPU; tmp is a float64, as in the course."""
    i, j = cuda.grid(2)
    if i < c.shape[0] and j < c.shape[1]:
        tmp = 0.0
        for k in range(a.shape[1]):
            tmp += a[i, k] * b[k, j]
        c[i, j] = tmp


def blocks_per_grid(shape):
    """Return how many blocks of TPB x TPB threads cover a matrix of this shape."""
    return tuple(math.ceil(size / TPB) for size in shape)


def device_array(tensor):
    """Return ``tensor`` as what a numba.cuda kernel takes, without a copy.

    That is a view of a tensor on the GPU, or of one in memory for Numba's simulator.
    """
    if numba.config.ENABLE_CUDASIM:
        return tensor.numpy()
    if not tensor.is_cuda:
        raise ValueError(
            f"this kernel needs tensors on a GPU, not on {tensor.device}; without a GPU, "
            "set NUMBA_ENABLE_CUDASIM=1 before Python starts, for Numba's simulator"
        )
    return cuda.as_cuda_array(tensor)


@rung(device="cuda")
def matmul_cuda(a, b):
    """All cells at once: a GPU thread for each, in blocks of 16 x 16."""
    c = torch.zeros(a.shape[0], b.shape[1], device=a.device)
    if c.numel():
        a, b, out = map(device_array, (a, b, c))
        matmul_kernel[blocks_per_grid(c.shape), (TPB, TPB)](a, b, out)
    return c


@rung(device="cuda")
def matmul_torch_cuda(a, b):
    """torch.matmul on the GPU, by cuBLAS in full float32."""
    if not a.is_cuda:
        raise ValueError(f"matmul_torch_cuda needs tensors on a GPU, not on {a.device}")
    return torch.matmul(a, b)
