"""Matrix multiplication from the foundations, as fast.ai's course builds it up.

Read it from top to bottom beside the notebook, 01_matmul of fastai/course22p2: MNIST is
loaded, cut into chunks and wrapped in a Matrix; a random number generator is written; then
one matrix product climbs a ladder, from three Python loops to a GPU.

A rung of the ladder is a function ``(a, b) -> c`` on float32 torch tensors of shapes
(M, K), (K, N) and (M, N). The decorator above it is all that it takes to have it checked,
timed and shown. The ladder goes on in the folder beyond.
"""

import math
import os
import warnings
from itertools import islice, zip_longest

import numpy as np
import torch
from numba import cuda, njit

from ladder.gpu import current_stream, device_array
from ladder.mnist import download_mnist, load_mnist, path_gz
from ladder.rungs import SMALL, rung

# ---- Get data ----------------------------------------------------------------------


def get_data(path=path_gz):
    """Return ``((x_train, y_train), (x_valid, y_valid), (x_test, y_test))``, NumPy arrays.

    The course's file is downloaded to ``path`` unless it is there. Images are float32,
    (n, 784); labels are int64, (n,). Raises OSError or ValueError if the file
    can't be obtained, or if it is damaged.
    """
    if not path.exists():
        download_mnist(path)
    return load_mnist(path)


def chunks(x, sz):
    """Yield the slices of the sequence ``x`` of length ``sz``; the last may be shorter."""
    for i in range(0, len(x), sz):
        yield x[i : i + sz]


def islice_chunks(x, sz):
    """Yield the same as lists, from any iterable: take ``sz`` items until none is left."""
    it = iter(x)
    yield from iter(lambda: list(islice(it, sz)), [])


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
    if a < 0:
        raise ValueError(f"a seed is a non-negative integer, not {a}")
    a, x = divmod(a, 30268)
    a, y = divmod(a, 30306)
    a, z = divmod(a, 30322)
    rnd_state = int(x) + 1, int(y) + 1, int(z) + 1


def rand():
    """Return the next number of the stream, uniform in [0, 1)."""
    global rnd_state
    if rnd_state is None:
        raise RuntimeError("call seed(a) before the first random number")
    x, y, z = rnd_state
    x = (171 * x) % 30269
    y = (172 * y) % 30307
    z = (170 * z) % 30323
    rnd_state = x, y, z
    return (x / 30269 + y / 30307 + z / 30323) % 1.0


def forked(draw):
    """Return the number that ``draw()`` gives in a child process.

    A fork copies the state of every generator, so parent and child go on with the same
    numbers, unless the child seeds anew. Raises RuntimeError if ``draw`` fails in the child.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
        pid = os.fork()  # Python 3.12 warns if there are threads; the child only draws one number
    if pid == 0:
        try:
            os.write(writer, repr(float(draw())).encode())
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    try:
        return float(answer)
    except ValueError:
        raise RuntimeError(f"the child process failed: {answer or 'died'}") from None


# ---- Matrix multiplication ---------------------------------------------------------


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


@rung(shapes=[SMALL])
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


@rung(shapes=[SMALL])
def matmul_elementwise(a, b):
    """The inner loop as elementwise operations of torch: a product of K floats, then its sum."""
    ar, bc = len(a), b.shape[1]
    c = a.new_zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = (a[i, :] * b[:, j]).sum()
    return c


@rung(shapes=[SMALL])
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
            raise ValueError(f"shapes {tuple(a)} and {tuple(b)} don't broadcast: {m} meets {n}")
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


@rung(shapes=[SMALL], step=False)
def matmul_launch_kernel(a, b):
    """The GPU's way of thinking, in Python loops: a kernel called for each cell of c."""
    c = a.new_zeros(a.shape[0], b.shape[1])
    launch_kernel(matmul_cell, *c.shape, a, b, c)
    return c


@cuda.jit
def matmul_kernel(a, b, c):
    """`matmul_cell`, line for line, for the GPU; tmp is a float64, as in the course.

    Without the course's cuda.syncthreads() at the end: no thread waits for another's result.
    """
    i, j = cuda.grid(2)
    if i < c.shape[0] and j < c.shape[1]:
        tmp = 0.0
        for k in range(a.shape[1]):
            tmp += a[i, k] * b[k, j]
        c[i, j] = tmp


def blocks_per_grid(shape):
    """Return how many blocks of TPB x TPB threads cover a matrix of this shape."""
    return tuple(math.ceil(size / TPB) for size in shape)


@rung(device="cuda")
def matmul_cuda(a, b):
    """All cells at once: a GPU thread for each, in blocks of 16 x 16."""
    c = a.new_zeros(a.shape[0], b.shape[1])
    if c.numel():
        with current_stream(a) as stream:
            a, b, out = map(device_array, (a, b, c))
            matmul_kernel[blocks_per_grid(c.shape), (TPB, TPB), stream](a, b, out)
    return c


@rung(device="cuda")
def matmul_torch_cuda(a, b):
    """torch.matmul on the GPU, by cuBLAS in full float32."""
    if not a.is_cuda:
        raise ValueError(f"matmul_torch_cuda needs tensors on a GPU, not on {a.device}")
    return torch.matmul(a, b)
