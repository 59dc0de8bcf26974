"""Matrix multiplication from the foundations, as fast.ai's course builds it up.

Read it from top to bottom beside the notebook, 01_matmul of fastai/course22p2: MNIST is loaded, cut
into chunks and wrapped in a Matrix; a random number generator is written; then one product climbs a
ladder, from three Python loops to a GPU. m1, m2, x_train, weights, t1 and tr are in conftest.py.

A rung of the ladder is a function ``(a, b) -> c`` on float32 torch tensors of shapes
(M, K), (K, N) and (M, N). The notebook calls each of them matmul. The decorator `rung` above it is
all that it takes to have it checked, timed and shown, on SMALL (m1 @ m2) and FULL
(x_train @ weights) unless ``shapes`` says otherwise. ``course`` is the notebook's own time in
seconds, on a GPU with the copy back. The ladder goes on in the folder beyond.
"""

import math
import os
from itertools import islice, zip_longest

import numpy as np
import torch
from numba import cuda, njit

from ladder.mnist import download_mnist, load_mnist, path_gz
from ladder.rungs import rung_of_the_course as rung
from ladder.shape import FULL, SMALL, SQUARE  # 50000x784x10, 5x784x10, 1024x1024x1024

# ---- Get data ----------------------------------------------------------------------


def get_data(path=path_gz):
    """Return ``((x_train, y_train), (x_valid, y_valid), (x_test, y_test))``, NumPy arrays.

    The course's file is downloaded to ``path`` unless it is there. Images are float32,
    (n, 784); labels are int64, (n,). Raises OSError or ValueError if the file
    can't be obtained, or if it is damaged.
    """
    if not path.exists():
        download_mnist(path)  # urlretrieve in the notebook; here the content is checked
    return load_mnist(path)  # pickle.load in the notebook; here no code in the file is run


def chunks(x, sz):
    """Yield the slices of the sequence ``x`` of length ``sz``; the last may be shorter."""
    for i in range(0, len(x), sz):
        yield x[i : i + sz]


def islice_chunks(x, sz):
    """Yield the same as lists, from any iterable: take ``sz`` items until none is left."""
    it = iter(x)
    # iter(f, []) calls f() until it returns []
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


def fork(draw):
    """Return the number that ``draw()`` gives in this process, and in a forked copy of it.

    The copy has the same state, and so the same number, unless it seeds anew. The notebook prints
    both; here the copy sends its own through a pipe. Not on Windows.
    """
    reader, writer = os.pipe()
    if child := os.fork():
        os.waitpid(child, 0)
        os.close(writer)
        with open(reader) as pipe:
            return draw(), float(pipe.read())
    try:
        os.write(writer, repr(draw()).encode())
    finally:
        os._exit(os.EX_OK)


# ---- Matrix multiplication ---------------------------------------------------------


@rung(shapes=[SMALL], course={SMALL: 416e-3})
def matmul_loops(a, b):
    """Three Python loops: M*N*K steps, and each asks torch for several operations."""
    (ar, ac), (br, bc) = a.shape, b.shape
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


@rung(shapes=[SMALL], course={SMALL: 245e-6})
def matmul_numba_dot(a, b):
    """The inner loop compiled by Numba: M*N steps are left in Python."""
    (ar, ac), (br, bc) = a.shape, b.shape
    a, b = a.numpy(), b.numpy()
    c = torch.zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = dot(a[i, :], b[:, j])
    return c


def frobenius(m):
    r"""Return the Frobenius norm of the tensor ``m``: elementwise operations only.

    .. math:: \| A \|_F = \left( \sum_{i,j=1}^n | a_{ij} |^2 \right)^{1/2}
    """
    return (m * m).sum().sqrt()


@rung(shapes=[SMALL], course={SMALL: 600e-6})
def matmul_elementwise(a, b):
    """The inner loop as two operations of torch: a product of K floats, then its sum."""
    (ar, ac), (br, bc) = a.shape, b.shape
    c = torch.zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = (a[i, :] * b[:, j]).sum()
    return c


@rung(shapes=[SMALL], course={SMALL: 487e-6})
def matmul_torch_dot(a, b):
    """torch.dot for the inner loop: product and sum in one call, without K floats in between."""
    (ar, ac), (br, bc) = a.shape, b.shape
    c = torch.zeros(ar, bc)
    for i in range(ar):
        for j in range(bc):
            c[i, j] = torch.dot(a[i, :], b[:, j])
    return c


# ---- Broadcasting ------------------------------------------------------------------


# A vector meets a matrix as if it stood in each row: c.expand_as(m) has a stride of 0 and copies
# nothing. c[None, :], c[None] and c.unsqueeze(0) are a row, (1, 3); c[:, None], c[..., None] and
# c.unsqueeze(1) a column, (3, 1). A column times a row is an outer product.


def broadcast_shapes(a, b):
    """Return the shape to which arrays of the shapes ``a`` and ``b`` broadcast.

    The notebook has only the rules: from the trailing dimension on, two dimensions are compatible
    when they are equal, or one of them is 1 or missing. Raises ValueError if the shapes are not.
    """
    shape = []
    for m, n in zip_longest(reversed(a), reversed(b), fillvalue=1):
        if m != n and m != 1 and n != 1:
            raise ValueError(f"shapes {tuple(a)} and {tuple(b)} don't broadcast: {m} meets {n}")
        shape.append(n if m == 1 else m)
    return tuple(reversed(shape))


# The next six are not in the notebook: they show what broadcasting saves.


def normalize_loop(x, mean, std):
    """Return ``(x - mean) / std`` for x (n, m) and two 0-dimensional tensors, row by row; n > 0."""
    return torch.stack([(row - mean) / std for row in x])


def normalize_expanded(x, mean, std):
    """The same with both scalars copied to the shape of ``x`` first."""
    return (x - mean.expand_as(x).contiguous()) / std.expand_as(x).contiguous()


def normalize_broadcast(x, mean, std):
    """The same by broadcasting: both scalars are read in place, nothing is copied."""
    return (x - mean) / std


def outer_loop(c, d):
    """Return the outer product (n, m) of c (n,) and d (m,), element by element in Python."""
    rows = [[x * y for y in d.tolist()] for x in c.tolist()]
    return torch.tensor(rows, dtype=c.dtype).reshape(len(c), len(d))


def outer_expanded(c, d):
    """The same with both vectors copied to the shape of the result first."""
    return c[:, None].expand(-1, len(d)).contiguous() * d[None].expand(len(c), -1).contiguous()


def outer_broadcast(c, d):
    """The same by broadcasting a column over a row."""
    return c[:, None] * d[None]


# The bridge: digit[:, None] * m2 is (784, 1) * (784, 10); its sum over the rows is digit @ m2.


@rung(course={SMALL: 72.4e-6, FULL: 673e-3})
def matmul_broadcast(a, b):
    """Each row of a, as a column, broadcast over b: M steps in Python, K*N floats in between."""
    (ar, ac), (br, bc) = a.shape, b.shape
    c = torch.zeros(ar, bc)
    for i in range(ar):
        # c[i, j] = (a[i, :] * b[:, j]).sum()  # previous version
        c[i] = (a[i, :, None] * b).sum(dim=0)  # broadcast version
    return c


# c[i, j] += a[i, k] * b[k, j]
@rung(course={FULL: 15.6e-3})
def matmul_einsum(a, b):
    """Einstein summation: no loop in Python; torch hands the product to its BLAS."""
    return torch.einsum("ik,kj->ij", a, b)


@rung(shapes=[SMALL, FULL, SQUARE], course={FULL: 15.5e-3}, yardstick=True)
def matmul_torch(a, b):
    """torch.matmul, or a @ b: the same BLAS without einsum's parsing."""
    return torch.matmul(a, b)


# ---- CUDA --------------------------------------------------------------------------


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


@rung(shapes=[SMALL], starts_anew=True)
def matmul_launch_kernel(a, b):
    """The GPU's way of thinking, in Python loops: a kernel called for each cell of c."""
    (ar, ac), (br, bc) = a.shape, b.shape
    res = torch.zeros(ar, bc)
    launch_kernel(matmul_cell, ar, bc, a, b, res)
    return res


@cuda.jit
def matmul_kernel(a, b, c):
    """`matmul_cell`, line for line, for the GPU; tmp is a float64."""
    i, j = cuda.grid(2)
    if i < c.shape[0] and j < c.shape[1]:
        tmp = 0.0
        for k in range(a.shape[1]):
            tmp += a[i, k] * b[k, j]
        c[i, j] = tmp
    cuda.syncthreads()  # the notebook's own; nothing here needs it


TPB = 16  # threads per block, in each dimension


def blocks_for(r):
    """Return how many blocks of TPB x TPB threads cover the rows and the columns of ``r``."""
    rr, rc = r.shape
    return math.ceil(rr / TPB), math.ceil(rc / TPB)


def matmul_and_copy(a, b):
    """What the notebook's cells do: copy NumPy arrays to the GPU, multiply, and copy c back.

    c is float64, (M, N).
    """
    r = np.zeros((len(a), b.shape[1]))
    m1g, m2g, rg = cuda.to_device(a), cuda.to_device(b), cuda.to_device(r)
    matmul_kernel[blocks_for(r), (TPB, TPB)](m1g, m2g, rg)
    return rg.copy_to_host()


@rung(device="cuda", course={FULL: 3.69e-3})
def matmul_cuda(a, b):
    """All cells at once: a GPU thread for each, in blocks of 16 x 16.

    The course's kernel and launch, on tensors that are on the current GPU already, on Numba's
    default stream. A grid has at most 65,535 blocks across: N is 1,048,560 at most.
    """
    r = torch.zeros(len(a), b.shape[1], device=a.device)
    if b.shape[1] > 65_535 * TPB:
        raise ValueError(f"N is {b.shape[1]:,}, and a grid of the course's has 1,048,560 columns")
    if r.numel():  # a grid has at least one block
        matmul_kernel[blocks_for(r), (TPB, TPB)](a, b, r)
    return r


@rung(shapes=[SMALL, FULL, SQUARE], device="cuda", course={FULL: 429e-6}, yardstick=True)
def matmul_torch_cuda(a, b):
    """torch.matmul on the GPU, by cuBLAS in full float32."""
    return torch.matmul(a, b)
