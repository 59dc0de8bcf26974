"""Matrix multiplication from the foundations, as fast.ai's course builds it up.

Read it from top to bottom: MNIST is loaded with the standard library, cut into chunks and
wrapped in a Matrix; a random number generator is written; then one matrix product climbs
a ladder of rungs, from three Python loops to a GPU. A rung is a function ``(a, b) -> c``
on float32 torch tensors of shapes (M, K), (K, N) and (M, N); the decorator above it puts
it into `RUNGS`, from which tests, tables and figures take it.

The lesson: notebook 01_matmul of fastai/course22p2.
"""

import glob
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
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from http.client import HTTPException
from itertools import islice, zip_longest
from pathlib import Path
from time import monotonic, time
from urllib.error import HTTPError
from urllib.request import urlopen

import numba
import numpy as np
import torch
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import cuda, float32, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch.autograd import forward_ad

from ladder import printable

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
    ``dest``, and renamed. What a process that was killed has left there is removed once it
    is an hour old. ``timeout`` is how many seconds the server may be silent; the whole
    download may take 60 times as long. A terminal sees the progress.

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
    handle, part = tempfile.mkstemp(".part", f"{dest.name}.download-", dest.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)
        os.replace(part, dest)
    except BaseException:
        os.unlink(part)
        raise
    for left in dest.parent.glob(f"{glob.escape(dest.name)}.download-*.part"):
        with suppress(OSError):
            if time() - left.stat().st_mtime > 3600:
                left.unlink()
    return dest


def _fetch(url, timeout):
    content, deadline = bytearray(), monotonic() + 60 * timeout
    try:
        with urlopen(url, timeout=timeout) as response:
            while len(content) <= MNIST_BYTES and (block := response.read1(2**16)):
                content += block
                _show_progress(len(content))
                if monotonic() > deadline:
                    raise TimeoutError(
                        f"{url}: not complete after {60 * timeout:.0f} s"
                    )
    except HTTPError as error:
        error.close()  # its body, of any length, is not read
        raise
    except HTTPException as error:
        raise OSError(f"{url}: no answer in HTTP ({error!r})") from error
    return content


def _show_progress(size):
    if sys.stderr.isatty():
        done = f"{size / 1e6:.1f} of {MNIST_BYTES / 1e6:.1f} MB"
        end = "" if size < MNIST_BYTES else "\n"
        print(f"\rMNIST: {done}", end=end, file=sys.stderr)


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
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            raise ValueError(
                f"{path}: damaged, or not MNIST as the course has it "
                f"({type(error).__name__}: {printable(str(error)[:200])})"
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
        if name not in ("f4", "i8"):
            raise ValueError("an array of something else than f4 or i8")
        self.name, self.order = name, "<"

    def __setstate__(self, state):
        self.order = state[1]
        if self.order not in ("<", ">"):
            raise ValueError("an array in an unknown byte order")


class PickledArray:
    """Stands in for numpy.ndarray while a pickle is read; ``array`` is what it held."""

    def __init__(self, spend):
        self.spend, self.array = spend, None

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.spend(len(content))
        if isinstance(content, str):
            content = content.encode("latin-1")
        values = np.frombuffer(content, dtype.order + dtype.name)
        values = values.reshape(shape, order="F" if fortran else "C")
        self.array = values.astype(values.dtype.newbyteorder("="), order="C")


class ArrayUnpickler(pickle._Unpickler):
    """Unpickles tuples of float32 and int64 arrays, and refuses all else before it runs.

    The four names that pickled arrays need (in their old and new spellings) lead to
    stand-ins that only record what they are given; the opcodes are those that Python 2
    and 3 write for such a pickle in the protocols 0 to 4. What a file can make of these
    is limited too: 10,000 opcodes, and 1 GiB of arrays. The base is the standard
    library's unpickler in Python: the one in C lets a file take any amount of memory.
    """

    OPCODES = """
        PROTO MARK STOP GLOBAL STACK_GLOBAL REDUCE BUILD TUPLE TUPLE1 TUPLE2 TUPLE3
        PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET NONE NEWTRUE NEWFALSE
        INT BININT BININT1 BININT2 LONG LONG1 STRING BINSTRING SHORT_BINSTRING UNICODE
        BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    """.split()

    def __init__(self, file):
        super().__init__(file, encoding="latin-1")
        self.opcodes, self.bytes = 0, 0
        self.names = {
            ("numpy.core.multiarray", "_reconstruct"): self.new_array,
            ("numpy._core.multiarray", "_reconstruct"): self.new_array,
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): PickledDtype,
            ("_codecs", "encode"): self.encode,
        }

    def find_class(self, module, name):
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in an array")
        return self.names[module, name]

    def new_array(self, *empty_array):
        return PickledArray(self.spend)

    def encode(self, text, encoding):
        if encoding != "latin1":
            raise pickle.UnpicklingError("bytes in another encoding than latin1")
        self.spend(len(text))
        return text.encode("latin-1")

    def spend(self, count):
        self.bytes += count
        if self.bytes > UNPACKED_LIMIT:
            raise pickle.UnpicklingError(
                f"more than {UNPACKED_LIMIT:,} bytes of arrays"
            )

    def load_reduce(self):
        if type(self.stack[-1]) is not tuple:
            raise pickle.UnpicklingError("arguments that are not a tuple")
        super().load_reduce()

    def skip_frame_size(self):
        self.read(8)

    def refuse(self):
        raise pickle.UnpicklingError("an opcode that has no place in an array")

    def counted(load):
        def load_counted(self):
            self.opcodes += 1
            if self.opcodes > OPCODE_LIMIT:
                raise pickle.UnpicklingError(f"more than {OPCODE_LIMIT:,} opcodes")
            load(self)

        return load_counted

    dispatch = dict.fromkeys(range(256), refuse)
    for _name in OPCODES:
        _code = getattr(pickle, _name)[0]
        dispatch[_code] = counted(pickle._Unpickler.dispatch[_code])
    dispatch[pickle.REDUCE[0]] = counted(load_reduce)
    dispatch[pickle.FRAME[0]] = counted(skip_frame_size)


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
    x, y, z = _state()
    x = (171 * x) % 30269
    y = (172 * y) % 30307
    z = (170 * z) % 30323
    rnd_state = x, y, z
    return (x / 30269 + y / 30307 + z / 30323) % 1.0


def rand_array_loop(n):
    """Return the next n numbers of `rand` as a float64 array (n,): one call after the other."""
    return np.array([rand() for _ in range(_count(n))])


def rand_array_numba(n):
    """The same, compiled by Numba; each number waits for the state that the last one left."""
    global rnd_state
    out = np.empty(_count(n))
    rnd_state = _rand_loop(out, *_state())
    return out


@njit
def _rand_loop(out, x, y, z):
    for i in range(len(out)):
        x = (171 * x) % 30269
        y = (172 * y) % 30307
        z = (170 * z) % 30323
        out[i] = (x / 30269 + y / 30307 + z / 30323) % 1.0
    return x, y, z


def rand_array(n):
    """The same by jumping ahead: n steps multiply the state by 171**n modulo 30269, and so on.

    The powers for a block of numbers are in a table, so that they no longer wait for each
    other and are made eight at a time by the CPU's vector instructions.
    """
    global rnd_state
    out = np.empty(_count(n))
    _rand_jump(out, *_state(), *POWERS)
    rnd_state = tuple(
        pow(a, int(n), p) * s % p
        for (a, p), s in zip(GENERATORS, rnd_state, strict=True)
    )
    return out


GENERATORS = (171, 30269), (172, 30307), (170, 30323)
POWERS = [
    np.array([pow(a, i, p) for i in range(1, 513)], np.uint32) for a, p in GENERATORS
]


@njit(error_model="numpy")
def _rand_jump(out, x, y, z, x_powers, y_powers, z_powers):
    x, y, z = np.uint32(x), np.uint32(y), np.uint32(z)
    block = len(x_powers)
    for start in range(0, len(out), block):
        numbers = out[start : start + block]
        for i in range(len(numbers)):
            u = np.float64(np.uint32(x * x_powers[i]) % np.uint32(30269)) / 30269
            v = np.float64(np.uint32(y * y_powers[i]) % np.uint32(30307)) / 30307
            w = np.float64(np.uint32(z * z_powers[i]) % np.uint32(30323)) / 30323
            total = u + v + w
            numbers[i] = total - np.floor(total)
        x = x * x_powers[-1] % np.uint32(30269)
        y = y * y_powers[-1] % np.uint32(30307)
        z = z * z_powers[-1] % np.uint32(30323)


def _count(n):
    if not isinstance(n, (int, np.integer)) or n < 0:
        raise ValueError(f"the count of numbers is a non-negative integer, not {n!r}")
    return n


def _state():
    if rnd_state is None:
        raise RuntimeError("call seed(a) before the first random number")
    return rnd_state


def forked(draw, timeout=10.0):
    """Fork, and return the number that ``draw()`` gives in the child process.

    A fork copies the state of every generator, so parent and child go on with the same
    numbers unless the child seeds anew. The number comes back through a pipe. A child
    that isn't done after ``timeout`` seconds is killed; so is, by OpenMP, one that calls a
    parallel rung after its parent has.

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
        answer = os.read(reader, select.PIPE_BUF).decode(errors="replace")
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
    """One step of the ladder: ``fn(a, b) -> c``, the named shapes it can bear, its device.

    ``fn`` takes operands that `check_operands` lets pass; the function of the rung's name in
    this module checks them first.
    """

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

    if callable(shapes):
        raise TypeError(f"write @rung(), with parentheses, above {shapes.__name__}")

    def register(fn):
        if fn.__name__ in RUNGS:
            raise ValueError(f"there already is a rung {fn.__name__}")
        if not fn.__doc__ or SMALL not in shapes or {*shapes} - {SMALL, FULL}:
            raise ValueError(
                f"{fn.__name__}: a rung has a docstring that says what is new, and the "
                f"shapes ({SMALL},) or ({SMALL}, {FULL}), not {tuple(shapes)}"
            )
        RUNGS[fn.__name__] = Rung(fn.__name__, fn, tuple(shapes), device)

        @wraps(fn)
        def checked(a, b):
            check_operands(a, b, device)
            return fn(a, b)

        return checked

    return register


def check_operands(a, b, device):
    """Refuse what is not a product of two float32 tensors (M, K) and (K, N) on ``device``.

    Takes two microseconds, so it is done once before a rung is timed, not in each call.
    Raises TypeError for anything but dense float32 tensors, ValueError for shapes that
    don't match, for tensors elsewhere than on the rung's device, and for those that record
    gradients, are negated only on paper (``is_neg()``) or have less memory than elements.
    """
    if numba.config.ENABLE_CUDASIM:
        device = "cpu"
    for name, x in ("a", a), ("b", b):
        if type(x) not in PLAIN_TENSORS or x.is_nested:
            raise TypeError(f"{name} is a {type(x).__name__}, not a plain torch.Tensor")
        if x.dtype is not torch.float32 or x.layout is not torch.strided:
            raise TypeError(f"{name} is {x.dtype}, {x.layout}, not float32 and strided")
        if not (x.is_cpu if device == "cpu" else x.is_cuda):
            raise ValueError(
                f"{name} is on {x.device}, not on {device}; without a GPU, Numba's simulator "
                "takes its place if NUMBA_ENABLE_CUDASIM=1 is set before Python starts"
            )
        if (
            x.requires_grad
            or x.is_neg()
            or forward_ad.unpack_dual(x).tangent is not None
        ):
            raise ValueError(
                f"{name} records gradients or is a lazily negated view: give "
                f"{name}.detach().resolve_neg()"
            )
        no_memory = x.numel() and not x.data_ptr()
        if no_memory or x.untyped_storage().nbytes() < 4 * _floats_needed(x):
            raise ValueError(f"{name} has less memory than its {x.numel()} elements")
    left, right = a.shape, b.shape
    if len(left) != 2 or len(right) != 2 or left[1] != right[0] or a.device != b.device:
        raise ValueError(
            f"a product takes shapes (M, K) and (K, N) on one device, not {tuple(left)} "
            f"on {a.device} and {tuple(right)} on {b.device}"
        )


PLAIN_TENSORS = torch.Tensor, torch.nn.Parameter


def _floats_needed(x):
    """Return how many floats of memory a tensor reaches over, from its storage's first on."""
    if x.is_contiguous():
        return (x.numel() and x.storage_offset()) + x.numel()
    steps = zip(x.shape, x.stride(), strict=True)
    return x.storage_offset() + 1 + sum((size - 1) * step for size, step in steps)


@rung(shapes=[SMALL])
def matmul_loops(a, b):
    """Three Python loops: M*N*K steps, each of which makes four small tensors."""
    (ar, ac), bc = a.shape, b.shape[1]
    c = a.new_zeros(ar, bc)
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
    ar, bc = len(a), b.shape[1]
    a, b = a.numpy(), b.numpy()
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
    c = a.new_zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = (a[i, :] * b[:, j]).sum()
    return c


@rung()
def matmul_torch_dot(a, b):
    """torch.dot for the inner loop: product and sum in one call, without K floats in between."""
    ar, bc = len(a), b.shape[1]
    c = a.new_zeros(ar, bc)
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
    """Return ``(x - mean) / std`` for x (n, m) and two 0-dimensional tensors, row by row; n > 0."""
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
    rows = [[x * y for y in d.tolist()] for x in c.tolist()]
    return torch.tensor(rows, dtype=c.dtype).reshape(len(c), len(d))


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
    c = a.new_zeros(ar, bc)
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
    """The GPU's way of thinking, in Python loops: a kernel called for each cell of c."""
    c = a.new_zeros(a.shape[0], b.shape[1])
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

    That is a view of a tensor on the GPU, or of one in memory for Numba's simulator. Kernels
    run on the default stream, as torch's do unless it is told otherwise, so order holds.
    """
    if numba.config.ENABLE_CUDASIM:
        return tensor.contiguous().numpy()
    return cuda.as_cuda_array(tensor)


@rung(device="cuda")
def matmul_cuda(a, b):
    """All cells at once: a GPU thread for each, in blocks of 16 x 16."""
    c = a.new_zeros(a.shape[0], b.shape[1])
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


# ---- Past the course, on the CPU ---------------------------------------------------
#
# The full shape reads 157 MB for 0.78 GFLOP: what counts is how fast a comes from memory.


def tile_size(features):
    """Return (floats in a vector, rows, columns) of the tile that fits a CPU's registers.

    ``features`` are LLVM's names. AVX-512: 32 registers of 16 floats, NEON: 32 of 4,
    AVX2: 16 of 8.
    """
    if features.get("avx512f"):
        return 16, 5, 5
    return (4, 5, 5) if features.get("neon") else (8, 2, 5)


LANES, TILE_ROWS, TILE_COLUMNS = tile_size(get_host_cpu_features())


def multiply_add(n, threads):
    """Do 24 * LANES * n * threads float32 operations in registers; return a result per thread.

    A measure of the machine: nothing is read from memory. Each result is 12 * LANES.
    """
    out = np.zeros(threads, np.float32)
    _multiply_add(np.float32(0.5), n, out)
    return out


@njit(parallel=True, fastmath={"contract"})
def _multiply_add(x, n, out):
    for thread in prange(len(out)):
        sums = np.zeros(12 * LANES, np.float32)
        for _ in range(n):
            for lane in range(12 * LANES):
                sums[lane] = sums[lane] * x + x
        out[thread] = sums.sum()


@rung()
def matmul_numpy(a, b):
    """A peer: numpy's @, which is OpenBLAS where torch has MKL."""
    return torch.from_numpy(a.numpy() @ b.numpy())


@rung()
def matmul_numba_loops(a, b):
    """The course's three loops, all compiled: no Python left, one multiplication at a time."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _loops(a.numpy(), b.numpy(), c)
    return torch.from_numpy(c)


@njit
def _loops(a, b, c):
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            tmp = np.float32(0)
            for k in range(a.shape[1]):
                tmp += a[i, k] * b[k, j]
            c[i, j] = tmp


# Vectors of sums add up in another order than the loop says. These flags allow that, and
# unlike the whole of fastmath let NaN and Inf come through.
ANY_ORDER = {"reassoc", "contract", "nsz"}


@rung()
def matmul_numba_vector(a, b):
    """b transposed once (31 KB), so that vector instructions read both operands along k."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _dots(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


@njit(fastmath=ANY_ORDER)
def _dots(a, bt, c):
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = _dot32(a[i], bt[j])


@njit(fastmath=ANY_ORDER)
def _dot32(x, y):
    tmp = np.float32(0)
    for k in range(len(x)):
        tmp += x[k] * y[k]
    return tmp


@rung()
def matmul_numba_parallel(a, b):
    """The rows of c shared out to all cores."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _dots_parallel(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


@njit(parallel=True, fastmath=ANY_ORDER)
def _dots_parallel(a, bt, c):
    for i in prange(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = _dot32(a[i], bt[j])


@rung()
def matmul_numba_tile(a, b):
    """A register tile: 4 x 2 sums at a time, so that a row of a serves 2 columns, and of bt 4 rows."""
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _tiles(a.contiguous().numpy(), b.T.contiguous().numpy(), c)
    return torch.from_numpy(c)


@njit(parallel=True, fastmath=ANY_ORDER)
def _tiles(a, bt, c):
    m, n = c.shape
    for tile in prange((m + 3) // 4):
        # Past the last row or column, the last one stands in; it is computed again.
        i0 = 4 * tile
        i1, i2, i3 = min(i0 + 1, m - 1), min(i0 + 2, m - 1), min(i0 + 3, m - 1)
        for j0 in range(0, n, 2):
            j1 = min(j0 + 1, n - 1)
            p, q, r, s, x, y = a[i0], a[i1], a[i2], a[i3], bt[j0], bt[j1]
            px = py = qx = qy = rx = ry = sx = sy = np.float32(0)
            for k in range(len(x)):
                px += p[k] * x[k]
                py += p[k] * y[k]
                qx += q[k] * x[k]
                qy += q[k] * y[k]
                rx += r[k] * x[k]
                ry += r[k] * y[k]
                sx += s[k] * x[k]
                sy += s[k] * y[k]
            c[i0, j0], c[i0, j1], c[i1, j0], c[i1, j1] = px, py, qx, qy
            c[i2, j0], c[i2, j1], c[i3, j0], c[i3, j1] = rx, ry, sx, sy


@rung()
def matmul_numba_prefetch(a, b):
    """While a tile is computed, the rows of a tile to come are fetched from memory.

    Without that, memory rests while the cores compute, and the cores while memory is read:
    the two times add up. Numba has no prefetch instruction, and LLVM vectorizes no loop
    that has one; so the tile's inner loop is written in LLVM's language, as large as the
    registers allow (5 x 5 vectors of 16 floats with AVX-512).
    """
    m, n = len(a), b.shape[1]
    c = np.empty((m, n), np.float32)
    _prefetched_tiles_parallel(
        a.contiguous().numpy(), padded_transpose(b.contiguous().numpy()), c
    )
    return torch.from_numpy(c)


TILES_AHEAD = 4


@intrinsic
def multiply_tile(typingctx, a, i, bt, j, c):
    """c[i : i + TILE_ROWS, j : j + TILE_COLUMNS] = a @ bt.T, over K // LANES * LANES of K columns.

    In Python, with all r and q at once::

        for k in range(0, K // LANES * LANES, LANES):
            prefetch(a[i + r + TILES_AHEAD * TILE_ROWS, k])
            sums[r, q] += a[i + r, k : k + LANES] * bt[j + q, k : k + LANES]
        c[i + r, j + q] = sums[r, q].sum()

    The prefetch goes to the second-level cache. All three arrays are contiguous; bt has the
    rows that the tile needs, even where c has no such column.
    """

    def codegen(context, builder, signature, args):
        a, bt, c = arrays(context, builder, signature, args, 0, 2, 4)
        i, j = args[1], args[3]
        index, float_, byte = ir.IntType(64), ir.FloatType(), ir.IntType(8).as_pointer()
        flag, vector = ir.IntType(32), ir.VectorType(float_, LANES)
        width, n = (cgutils.unpack_tuple(builder, array.shape)[1] for array in (a, c))
        ahead = builder.mul(width, index(TILES_AHEAD * TILE_ROWS))
        prefetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]),
            "llvm.prefetch.p0",
        )

        def starts(first, count, width):
            rows = [builder.add(first, index(r)) for r in range(count)]
            return [builder.mul(row, width) for row in rows]

        def load(array, start, k):
            item = builder.gep(array.data, [builder.add(start, k)])
            return builder.load(builder.bitcast(item, vector.as_pointer()), align=4)

        zero = ir.Constant(vector, None)
        sums = [
            [cgutils.alloca_once_value(builder, zero) for _ in range(TILE_COLUMNS)]
            for _ in range(TILE_ROWS)
        ]
        rows, columns = starts(i, TILE_ROWS, width), starts(j, TILE_COLUMNS, width)
        stop = builder.and_(width, index(-LANES))
        with cgutils.for_range_slice(builder, index(0), stop, index(LANES), index) as (
            k,
            _,
        ):
            for row in rows:
                item = builder.gep(a.data, [builder.add(builder.add(row, k), ahead)])
                to_read, to_l2, data = flag(0), flag(2), flag(1)
                item = builder.bitcast(item, byte)
                builder.call(prefetch, [item, to_read, to_l2, data])
            xs = [load(a, row, k) for row in rows]
            for q, column in enumerate(columns):
                y = load(bt, column, k)
                for row_sums, x in zip(sums, xs, strict=True):
                    product = builder.fmul(x, y, flags=["contract"])
                    total = builder.load(row_sums[q])
                    total = builder.fadd(total, product, flags=["contract"])
                    builder.store(total, row_sums[q])
        totals = add_lanes(builder, [builder.load(s) for row in sums for s in row])
        outs = starts(i, TILE_ROWS, n)
        for q in range(TILE_COLUMNS):
            column = builder.add(j, index(q))
            with builder.if_then(builder.icmp_signed("<", column, n)):
                for out, total in zip(outs, totals[q::TILE_COLUMNS], strict=True):
                    item = builder.gep(c.data, [builder.add(out, column)])
                    builder.store(total, item)
        return context.get_dummy_value()

    return types.void(a, types.intp, bt, types.intp, c), codegen


def arrays(context, builder, signature, args, *positions):
    """Return those of an intrinsic's arguments that are arrays, with .data and .shape."""
    return [
        context.make_array(signature.args[n])(context, builder, args[n])
        for n in positions
    ]


def add_lanes(builder, vectors):
    """Return the sum over the lanes of each vector: neighbours are added, in pairs of vectors."""
    lane, count = ir.IntType(32), len(vectors)
    even, odd = (
        ir.Constant(ir.VectorType(lane, LANES), list(range(n, 2 * LANES, 2)))
        for n in (0, 1)
    )
    width = LANES
    while width > 1:
        if len(vectors) % 2:
            vectors.append(vectors[-1])
        vectors = [
            builder.fadd(
                builder.shuffle_vector(x, y, even), builder.shuffle_vector(x, y, odd)
            )
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        width //= 2
    return [
        builder.extract_element(vectors[n // LANES], lane(n % LANES))
        for n in range(count)
    ]


@njit
def _prefetched_tile(a, bt, c, i):
    """Compute the rows c[i : i + TILE_ROWS]."""
    n, width = c.shape[1], a.shape[1]
    for j in range(0, n, TILE_COLUMNS):
        multiply_tile(a, i, bt, j, c)
    for k in range(width // LANES * LANES, width):
        for r in range(i, i + TILE_ROWS):
            for j in range(n):
                c[r, j] += a[r, k] * bt[j, k]


@njit
def _prefetched_tiles(a, bt, c):
    m = len(c)
    for i in range(0, m - TILE_ROWS + 1, TILE_ROWS):
        _prefetched_tile(a, bt, c, i)
    _rest(a, bt, c, m // TILE_ROWS * TILE_ROWS)


@njit(parallel=True)
def _prefetched_tiles_parallel(a, bt, c):
    m = len(c)
    for tile in prange(m // TILE_ROWS):
        _prefetched_tile(a, bt, c, tile * TILE_ROWS)
    _rest(a, bt, c, m // TILE_ROWS * TILE_ROWS)


@njit(fastmath=ANY_ORDER)
def _rest(a, bt, c, first):
    for i in range(first, c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = _dot32(a[i], bt[j])


@njit
def padded_transpose(b):
    """Return b.T (N, K), contiguous, with rows of zeros up to a multiple of TILE_COLUMNS."""
    width, n = b.shape
    bt = np.empty((-(-n // TILE_COLUMNS) * TILE_COLUMNS, width), np.float32)
    for k in range(width):
        for j in range(n):
            bt[j, k] = b[k, j]
    bt[n:] = 0
    return bt


@intrinsic
def matrix_at(typingctx, address, shape):
    """Return the contiguous float32 matrix of this shape that lies at ``address``, without a copy."""
    array_type = types.Array(types.float32, 2, "C")

    def codegen(context, builder, signature, args):
        array = context.make_array(array_type)(context, builder)
        itemsize = context.get_constant(types.intp, 4)
        rows, columns = cgutils.unpack_tuple(builder, args[1])
        context.populate_array(
            array,
            data=builder.inttoptr(args[0], array.data.type),
            shape=[rows, columns],
            strides=[builder.mul(columns, itemsize), itemsize],
            itemsize=itemsize,
            meminfo=None,
        )
        return array._getvalue()

    return array_type(types.intp, types.UniTuple(types.intp, 2)), codegen


@intrinsic
def multiply_rows(typingctx, a, i, b, j, c, stop):
    """c[i : i + TILE_ROWS, j : j + LANES] = a[:, :stop] @ b[:stop], as far as c goes.

    In Python, with all r at once::

        for k in range(stop):
            sums[r] += a[i + r, k] * b[k, j : j + LANES]
        c[i + r, j : j + LANES] = sums[r]

    The columns are neighbours in b, which need not be transposed, but has to go on for
    LANES floats from b[stop - 1, j]. Past the last row of a, that one stands in. All three
    arrays are contiguous.
    """

    def codegen(context, builder, signature, args):
        a, b, c = arrays(context, builder, signature, args, 0, 2, 4)
        i, j, stop = args[1], args[3], args[5]
        index, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        lane = ir.IntType(32)
        all_lane_0 = ir.Constant(ir.VectorType(lane, LANES), None)
        (m, width), (_, n) = (cgutils.unpack_tuple(builder, x.shape) for x in (a, c))
        zero, last = ir.Constant(vector, None), builder.sub(m, index(1))
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(TILE_ROWS)]
        rows = [builder.add(i, index(r)) for r in range(TILE_ROWS)]
        rows = [
            builder.select(builder.icmp_signed("<", row, last), row, last)
            for row in rows
        ]
        with cgutils.for_range(builder, stop, intp=index) as loop:
            k = loop.index
            item = builder.gep(b.data, [builder.add(builder.mul(k, n), j)])
            y = builder.load(builder.bitcast(item, vector.as_pointer()), align=4)
            for row, row_sum in zip(rows, sums, strict=True):
                item = builder.add(builder.mul(row, width), k)
                x = builder.load(builder.gep(a.data, [item]))
                x = builder.insert_element(zero, x, lane(0))
                x = builder.shuffle_vector(x, zero, all_lane_0)
                product = builder.fmul(x, y, flags=["contract"])
                total = builder.fadd(builder.load(row_sum), product, flags=["contract"])
                builder.store(total, row_sum)
        totals = [builder.load(row_sum) for row_sum in sums]
        for q in range(LANES):
            column = builder.add(j, index(q))
            with builder.if_then(builder.icmp_signed("<", column, n)):
                for row, total in zip(rows, totals, strict=True):
                    item = builder.add(builder.mul(row, n), column)
                    total = builder.extract_element(total, lane(q))
                    builder.store(total, builder.gep(c.data, [item]))
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp, c, types.intp), codegen


@njit
def _few_rows(a, b, c):
    (m, width), n = a.shape, c.shape[1]
    stop = max(0, width - LANES // n - 1)
    for i in range(0, m, TILE_ROWS):
        for j in range(0, n, LANES):
            multiply_rows(a, i, b, j, c, stop)
    for k in range(stop, width):
        for i in range(m):
            for j in range(n):
                c[i, j] += a[i, k] * b[k, j]


@rung()
def matmul_numba_address(a, b):
    """The same with less around it, for few rows: integers go to Numba instead of arrays.

    Wrapping three tensors as arrays takes longer than the product of the small shape. So
    does transposing b, for which up to 15 rows use `multiply_rows` instead, and waking other
    threads, for which small products stay in this one.
    """
    (m, k), n = a.shape, b.shape[1]
    a, b = a.contiguous(), b.contiguous()
    if not m * k * n:
        return a.new_zeros(m, n)
    c = a.new_empty(m, n)
    multiply = _at_addresses if m * k * n < 1_000_000 else _at_addresses_parallel
    multiply(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, k, n)
    return c


@njit
def _at_addresses(a, b, c, m, k, n):
    a, b, c = matrix_at(a, (m, k)), matrix_at(b, (k, n)), matrix_at(c, (m, n))
    if m < 16:
        _few_rows(a, b, c)
    else:
        _prefetched_tiles(a, padded_transpose(b), c)


@njit
def _at_addresses_parallel(a, b, c, m, k, n):
    a, b, c = matrix_at(a, (m, k)), matrix_at(b, (k, n)), matrix_at(c, (m, n))
    _prefetched_tiles_parallel(a, padded_transpose(b), c)


# ---- Past the course, on the GPU ---------------------------------------------------
#
# The full shape reads 157 MB for 0.78 GFLOP, so memory is the limit. In the course's
# kernel, neighbouring threads read different rows of a, and 6 of 16 columns are idle.

# Threads in a warp, and warps in a block; fewer where each is a thread of the simulator.
WARP, WARPS = (4, 2) if numba.config.ENABLE_CUDASIM else (32, 8)
ROWS, COLS = 4, 10
TILE = ROWS * COLS

if numba.config.ENABLE_CUDASIM:
    # Twins of the two instructions that the simulator lacks. Of two threads that come to a
    # shared array first, each may get one of its own there: hence the lock.
    first_come = threading.Lock()

    @cuda.jit(device=True)
    def warp_sum(sums):
        with first_come:
            lanes = cuda.shared.array((WARPS, WARP, TILE), float32)
        lane, warp = cuda.threadIdx.x, cuda.threadIdx.y
        lanes[warp, lane, : len(sums)] = sums
        cuda.syncthreads()
        sums[:] = lanes[warp, :, : len(sums)].sum(axis=0)
        cuda.syncthreads()

    def load4(array, start):
        return tuple(array.reshape(-1)[start : start + 4])

else:

    @cuda.jit(device=True)
    def warp_sum(sums):
        """Add up the 1-D array ``sums`` over the 32 threads of a warp, in place, in each of them."""
        for bit in (16, 8, 4, 2, 1):
            for n in range(len(sums)):
                sums[n] += cuda.shfl_xor_sync(0xFFFFFFFF, sums[n], bit)

    @intrinsic
    def load4(typingctx, array, start):
        """Return four floats of a contiguous array, from the start-th on, by one 128-bit load.

        ``start`` counts floats from the array's beginning and is a multiple of 4.
        """

        def codegen(context, builder, signature, args):
            ary = context.make_array(signature.args[0])(context, builder, args[0])
            item = builder.gep(ary.data, [args[1]])
            four = ir.VectorType(ir.FloatType(), 4).as_pointer(item.type.addrspace)
            values = builder.load(builder.bitcast(item, four), align=16)
            lanes = [ir.Constant(ir.IntType(32), n) for n in range(4)]
            items = [builder.extract_element(values, lane) for lane in lanes]
            return context.make_tuple(builder, signature.return_type, items)

        return types.UniTuple(types.float32, 4)(array, types.intp), codegen


def launch_warps(kernel, a, b, rows=1, shared=0):
    """Return c = a @ b from a kernel whose warps take ``rows`` rows of c at a time.

    ``shared`` is how many bytes of shared memory a block needs. A kernel that needs any
    gets as many blocks as the GPU holds at once, and these walk over c; any other gets
    as many as cover c.
    """
    a, b = a.contiguous(), b.contiguous()
    c = a.new_zeros(len(a), b.shape[1])
    if a.numel() and b.numel():
        blocks = math.ceil(len(a) / (WARPS * rows))
        if shared:
            blocks = min(blocks, blocks_at_once(a.device, shared))
        arrays = map(device_array, (a, b, c))
        kernel[blocks, (WARP, WARPS), 0, shared](*arrays)
    return c


def blocks_at_once(device, shared):
    """Return how many blocks with ``shared`` bytes the GPU holds at once; 0 if not even one."""
    if numba.config.ENABLE_CUDASIM:
        return 2 if shared <= 48 * 1024 else 0
    gpu = torch.cuda.get_device_properties(device)
    if shared > gpu.shared_memory_per_block:
        return 0
    by_threads = gpu.max_threads_per_multi_processor // (WARPS * WARP)
    by_memory = gpu.shared_memory_per_multiprocessor // (shared + 1024)
    return gpu.multi_processor_count * min(by_threads, by_memory)


@cuda.jit
def coalesced_kernel(a, b, c):
    """A warp for each row of c; its threads read neighbouring k."""
    lane, i = cuda.threadIdx.x, cuda.blockIdx.x * WARPS + cuda.threadIdx.y
    row = i if i < c.shape[0] else 0
    tmp = cuda.local.array(1, float32)
    for j in range(c.shape[1]):
        tmp[0] = 0
        for k in range(lane, a.shape[1], WARP):
            tmp[0] += a[row, k] * b[k, j]
        warp_sum(tmp)
        if lane == 0 and i < c.shape[0]:
            c[i, j] = tmp[0]


@rung(device="cuda")
def matmul_cuda_coalesced(a, b):
    """A warp to a row: its 32 threads read 128 neighbouring bytes of a at once; float32 sums."""
    return launch_warps(coalesced_kernel, a, b)


@cuda.jit(device=True)
def share_columns(b, first, columns):
    """Copy b[:, first : first + COLS], transposed, to ``columns`` in shared memory; 0 for what b lacks."""
    cuda.syncthreads()
    thread = cuda.threadIdx.y * WARP + cuda.threadIdx.x
    for index in range(thread, COLS * b.shape[0], WARPS * WARP):
        k, j = index // COLS, index % COLS
        columns[j * b.shape[0] + k] = (
            b[k, first + j] if first + j < b.shape[1] else float32(0)
        )
    cuda.syncthreads()


@cuda.jit
def shared_kernel(a, b, c):
    """Ten columns of b in each block's shared memory; a warp walks over rows of c."""
    lane, k_size = cuda.threadIdx.x, a.shape[1]
    columns = cuda.shared.array(0, float32)
    tmp = cuda.local.array(1, float32)
    for first in range(0, c.shape[1], COLS):
        share_columns(b, first, columns)
        for start in range(cuda.blockIdx.x * WARPS, c.shape[0], cuda.gridDim.x * WARPS):
            i = start + cuda.threadIdx.y
            row = i if i < c.shape[0] else 0
            for j in range(COLS):
                tmp[0] = 0
                for k in range(lane, k_size, WARP):
                    tmp[0] += a[row, k] * columns[j * k_size + k]
                warp_sum(tmp)
                if lane == 0 and i < c.shape[0] and first + j < c.shape[1]:
                    c[i, first + j] = tmp[0]


def launch_tiles(kernel, a, b, rows):
    """`launch_warps` with 10 columns of b in shared memory; without it if they don't fit."""
    shared = COLS * len(b) * 4
    if not blocks_at_once(a.device, shared):
        return launch_warps(coalesced_kernel, a, b)
    return launch_warps(kernel, a, b, rows, shared)


@rung(device="cuda")
def matmul_cuda_shared(a, b):
    """b in shared memory (31 KB): each block reads it once, not once for every row."""
    return launch_tiles(shared_kernel, a, b, rows=1)


@cuda.jit(device=True)
def store_tile(sums, c, i, first):
    """Write the sums over the warp to c[i : i + ROWS, first : first + COLS], as far as that exists."""
    warp_sum(sums)
    if cuda.threadIdx.x == 0:
        for r in range(ROWS):
            for j in range(COLS):
                if i + r < c.shape[0] and first + j < c.shape[1]:
                    c[i + r, first + j] = sums[r * COLS + j]


@cuda.jit
def tile_kernel(a, b, c):
    """A warp for 4 rows at a time: 4 x 10 sums in each thread's registers."""
    lane, k_size = cuda.threadIdx.x, a.shape[1]
    columns = cuda.shared.array(0, float32)
    sums = cuda.local.array(TILE, float32)
    step = WARPS * ROWS
    for first in range(0, c.shape[1], COLS):
        share_columns(b, first, columns)
        for start in range(cuda.blockIdx.x * step, c.shape[0], cuda.gridDim.x * step):
            i = start + cuda.threadIdx.y * ROWS
            for n in range(TILE):
                sums[n] = 0
            for k in range(lane, k_size, WARP):
                for r in range(ROWS):
                    x = a[i + r if i + r < c.shape[0] else 0, k]
                    for j in range(COLS):
                        sums[r * COLS + j] += x * columns[j * k_size + k]
            store_tile(sums, c, i, first)


@rung(device="cuda")
def matmul_cuda_tile(a, b):
    """A register tile: 4 x 10 sums in a thread, so that a is read once, and b for 4 rows at once."""
    return launch_tiles(tile_kernel, a, b, ROWS)


@cuda.jit
def vector_kernel(a, b, c):
    """`tile_kernel` with 128-bit loads: each thread takes 4 neighbouring k. K has to be 4 n."""
    lane, k_size = cuda.threadIdx.x, a.shape[1]
    columns = cuda.shared.array(0, float32)
    sums = cuda.local.array(TILE, float32)
    step = WARPS * ROWS
    for first in range(0, c.shape[1], COLS):
        share_columns(b, first, columns)
        for start in range(cuda.blockIdx.x * step, c.shape[0], cuda.gridDim.x * step):
            i = start + cuda.threadIdx.y * ROWS
            for n in range(TILE):
                sums[n] = 0
            for k in range(4 * lane, k_size, 4 * WARP):
                for r in range(ROWS):
                    row = i + r if i + r < c.shape[0] else 0
                    x = load4(a, row * k_size + k)
                    for j in range(COLS):
                        y = load4(columns, j * k_size + k)
                        for n in range(4):
                            sums[r * COLS + j] += x[n] * y[n]
            store_tile(sums, c, i, first)


@rung(device="cuda")
def matmul_cuda_vector(a, b):
    """128-bit loads: a quarter of the load instructions. Needs rows at 16 n bytes, else it is the tile."""
    a = a.contiguous()
    aligned = a.shape[1] % 4 == 0 and a.data_ptr() % 16 == 0
    return launch_tiles(vector_kernel if aligned else tile_kernel, a, b, ROWS)
