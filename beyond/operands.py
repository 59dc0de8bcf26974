"""What the rungs beyond the course do with their operands before and after the product itself."""

from torch import float32


def multiply_arrays(multiply, a, b):
    """Return a new tensor c, (M, N), that ``multiply(a, b, c)`` fills.

    ``a``, (M, K), and ``b``, (K, N), are float32 tensors on the CPU. ``multiply`` is a function
    that Numba has compiled: it gets NumPy arrays that share the tensors' memory. a is made
    contiguous first; b keeps its layout.
    """
    c = a.new_empty(len(a), b.shape[1])
    multiply(a.contiguous().numpy(), b.numpy(), c.numpy())
    return c


def operand_sizes(a, b, device, place):
    """Return M, K and N of the operands a, (M, K), and b, (K, N).

    Raises ValueError unless both are float32 tensors of such shapes on one device, of the type
    ``device``: "cpu" or "cuda". The message calls it ``place``. A rung that passes addresses on
    asks first: an address doesn't tell what lies there, and a wrong one crashes the process.
    """
    try:
        (m, k), (rows, n) = a.shape, b.shape
        if device == "cpu":
            together = a.is_cpu and b.is_cpu
        else:
            together = a.is_cuda and b.is_cuda and a.get_device() == b.get_device()
        fit = together and rows == k and a.dtype is b.dtype is float32
    except (AttributeError, ValueError):  # no tensors, or not of two dimensions
        fit = False
    if not fit:
        wanted = f"float32 tensors of shapes (M, K) and (K, N) on {place}"
        raise ValueError(f"takes {wanted}, not {description(a)} and {description(b)}")
    return m, k, n


def description(x):
    try:
        return f"{x.dtype} {tuple(x.shape)} on {x.device}"
    except AttributeError:
        return str(type(x))
