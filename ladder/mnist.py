"""The course's data set: download it, and load it without running anything that is in it."""

import gzip
import hashlib
import os
import pickle
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

path_data = Path(__file__).parent.parent / "data"
path_gz = path_data / "mnist.pkl.gz"
path_sample = path_data / "mnist-sample.pkl.gz"
REPOSITORY = "https://github.com/mnielsen/neural-networks-and-deep-learning"
MNIST_URL = f"{REPOSITORY}/blob/master/data/mnist.pkl.gz?raw=true"
MNIST_BYTES = 17_051_982
MNIST_BLOB = "059aba0d982e20e2ac125a3a59d89c3c2cd8b28a"  # as `git hash-object` says
UNPACKED_LIMIT = 2**30  # bytes


def download_mnist(dest, url=MNIST_URL, timeout=10.0):
    """Download the course's MNIST file (17 MB) to the path ``dest``, and return that path. ``dest``
    appears whole or not at all. ``timeout`` is how many seconds the server may be silent. Raises
    ValueError if it isn't the course's file, OSError if it can't be had."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = dest.with_name(f"{dest.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file, urlopen(url, timeout=timeout) as response:
            content = response.read(MNIST_BYTES + 1)
            file.write(content)
        if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != MNIST_BLOB:
            raise ValueError(f"{url}: not the course's file, which has git blob id {MNIST_BLOB}")
        return part.replace(dest)
    finally:
        part.unlink(missing_ok=True)


def find_mnist(choice, folder):
    """Return the path of the data for "auto", "sample" or a path in ``folder``, and why that one;
    raise ValueError if there is no such file."""
    if choice == "sample":
        return path_sample, "chosen by --mnist"
    if choice != "auto":
        path = Path(folder, os.path.expanduser(choice))
        if not path.is_file():
            raise ValueError(f"--mnist={choice}: there is no such file")
        return path, "chosen by --mnist"
    if path_gz.exists():
        return path_gz, "found there"
    try:
        return download_mnist(path_gz, timeout=5), "downloaded now"
    except (OSError, HTTPException, ValueError) as error:
        return path_sample, f"no data/mnist.pkl.gz, and the download failed: {error}"


class ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, and refuses a pickle that names anything else before it is called (from
    "Restricting Globals" in the documentation of Python's pickle module)."""

    NAMES = {"numpy.ndarray", "numpy.dtype", "_codecs.encode"}
    NAMES |= {"numpy._core.multiarray._reconstruct", "numpy._core.numeric._frombuffer"}

    def find_class(self, module, name):
        module = module.replace("numpy.core.", "numpy._core.")  # before numpy 2
        if f"{module}.{name}" not in self.NAMES:
            raise pickle.UnpicklingError(f"it names {f'{module}.{name}'!a}, which no array needs")
        return super().find_class(module, name)


def load_mnist(path):
    """Return ``((x_train, y_train), (x_valid, y_valid), (x_test, y_test))`` from a gzipped pickle.
    Images are float32 arrays of shape (n, 784) with values in [0, 1), labels int64 arrays of shape
    (n,) with values 0 to 9; n is 5 or more. Raises OSError if the file can't be read, ValueError
    if it holds anything else."""
    content = Path(path).read_bytes()
    try:
        with gzip.open(BytesIO(content)) as file:
            pickled = file.read(UNPACKED_LIMIT + 1)
        if len(pickled) > UNPACKED_LIMIT:
            raise ValueError(f"it unpacks to more than {UNPACKED_LIMIT:,} bytes")
        parts = ArrayUnpickler(BytesIO(pickled), encoding="latin-1").load()
        return tuple(_checked(*p) for p in zip(("train", "valid", "test"), parts, strict=True))
    except Exception as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path}: damaged, or not MNIST as the course has it ({what})") from error


def _checked(part, arrays):
    """Return the images and labels of a part, contiguous and writeable, if they are MNIST."""
    import numpy as np  # which starts its threads, after their number has been set

    x, y = (np.require(z, z.dtype.newbyteorder("="), "CW") for z in arrays)
    n = max(5, len(x))
    for name, z, dtype, shape, end in ("x", x, "f4", (n, 784), 1), ("y", y, "i8", (n,), 10):
        if not (z.dtype == dtype and z.shape == shape and z.min() >= 0 and z.max() < end):
            found, want = f"{z.dtype} {z.shape}", f"{np.dtype(dtype)} {shape}"
            raise ValueError(f"{name}_{part} is {found}, not {want} from 0 to below {end}")
    return x, y
