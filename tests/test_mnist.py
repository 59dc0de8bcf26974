"""The data set: what the loader takes and refuses, and what a download leaves behind."""

import gzip
import os
import pickle
from unittest.mock import Mock

import numpy as np
import pytest

from ladder import mnist
from ladder.mnist import download_mnist, find_mnist, load_mnist, path_data, path_sample

X, Y = np.eye(5, 784, dtype="f4") / 2, np.arange(5)


def some_mnist(**arrays):
    """A small data set, with the arrays that are given by name in it."""
    parts = "train", "valid", "test"
    return tuple((arrays.get(f"x_{part}", X), arrays.get(f"y_{part}", Y)) for part in parts)


def pickled(protocol=2, **arrays):
    return gzip.compress(pickle.dumps(some_mnist(**arrays), protocol), mtime=0)


READ_ONLY = X.copy()
READ_ONLY.flags.writeable = False
STORED = {"C": X, "F": np.asfortranarray(X), ">f4": X.astype(">f4"), "read-only": READ_ONLY}
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
FIRST_ROWS = tuple((x[:5], y[:5]) for x, y in load_mnist(path_sample))
PYTHON_2 = {n: (path_data / f"python2-protocol{n}.pkl.gz").read_bytes() for n in (0, 2)}
GOOD_CONTENT = {f"Python 2, {n}": (PYTHON_2[n], FIRST_ROWS) for n in PYTHON_2} | {
    f"{s}, {n}": (pickled(n, x_train=STORED[s]), some_mnist()) for s in STORED for n in PROTOCOLS
}


@pytest.mark.parametrize("case", GOOD_CONTENT)
def test_loaded(tmp_path, case):
    content, expected = GOOD_CONTENT[case]
    (tmp_path / "mnist").write_bytes(content)
    for arrays in zip(sum(load_mnist(tmp_path / "mnist"), ()), sum(expected, ()), strict=True):
        np.testing.assert_array_equal(*arrays, strict=True)
        assert arrays[0].flags.c_contiguous and arrays[0].flags.writeable


BAD_CONTENT = {
    "text": (b"not a gzip file", "BadGzipFile"),
    "cut off": (pickled()[:-1], "EOFError"),
    "too big": (gzip.compress(bytes(2_000_000))[:-1], "unpacks to more than 1,000,000 bytes"),
    "runs code": (gzip.compress(b"cos\nmkdir\n(S'made'\ntR."), "it names 'os.mkdir'"),
    "hides code": (gzip.compress(b"\x80\x04\x8c\x05numpy\x8c\x07os.path\x93."), "numpy.os.path"),
    "another codec": (gzip.compress(b"c_codecs\nlookup\n(S'zip'\ntR."), "names '_codecs.lookup'"),
    "steers a terminal": (gzip.compress(b"cos\x1b[31m\nx\n."), r"names 'os\\x1b\[31m.x'"),
    "two parts": (gzip.compress(pickle.dumps(some_mnist()[:2], 2)), "ValueError"),
    "float64": (pickled(x_train=X.astype("f8")), "x_train is float64"),
    "4 rows": (pickled(x_train=X[:4], y_train=Y[:4]), "x_train is "),
    "int32 labels": (pickled(y_test=Y.astype("i4")), "y_test is int32"),
    "label 10": (pickled(y_train=Y + 6), "y_train is int64"),
    "a pixel of 1": (pickled(x_test=X * 2), "x_test is float32"),
    "NaN": (pickled(x_test=np.where(X, np.nan, X)), "x_test is float32"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_refused(tmp_path, monkeypatch, case):
    """One error with the file's name; nothing in the file has been called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mnist, "UNPACKED_LIMIT", 1_000_000)
    content, reason = BAD_CONTENT[case]
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad: damaged, or not MNIST .*{reason}"):
        load_mnist(tmp_path / "bad")
    assert os.listdir() == ["bad"]


COURSE_FILE = bytes(range(256)) * 1000


@pytest.mark.parametrize("content, error, message", [
    (COURSE_FILE, None, ""),
    (None, OSError, "urlopen error"),
    (COURSE_FILE[::-1], ValueError, "not the course's file"),
    (COURSE_FILE + b"more", ValueError, "not the course's file"),
    (COURSE_FILE, OSError, "no space left"),
])  # fmt: skip
def test_download(tmp_path, monkeypatch, content, error, message):
    """It appears whole, or what was there before is there still; and nothing else."""
    monkeypatch.setattr(mnist, "MNIST_BYTES", len(COURSE_FILE))
    monkeypatch.setattr(mnist, "MNIST_BLOB", "ed99543dba99b885850a5e5a6bf95545aaa9754c")
    source, dest = tmp_path / "source", tmp_path / "data" / "mnist.pkl.gz"
    if content:
        source.write_bytes(content)
    if not error:
        assert download_mnist(dest, source.as_uri()) == dest
    else:
        dest.parent.mkdir()
        dest.write_bytes(b"before")
        full_disk = Mock(side_effect=OSError("no space left"))
        monkeypatch.setattr(type(dest), "replace", full_disk)
        with pytest.raises(error, match=message):
            download_mnist(dest, source.as_uri())
    left = [path.read_bytes() for path in dest.parent.iterdir()]
    assert left == [b"before" if error else content]


def test_choice(tmp_path, monkeypatch):
    """Without a file and a network, the sample takes its place, and the reason is told."""
    monkeypatch.setattr(mnist, "path_gz", tmp_path / "mnist.pkl.gz")
    monkeypatch.setattr(download_mnist, "__defaults__", ((tmp_path / "not there").as_uri(), 1))
    path, why = find_mnist("auto", tmp_path)
    assert path == path_sample and "the download failed: <urlopen error" in why
    mnist.path_gz.touch()
    assert find_mnist("auto", tmp_path) == (mnist.path_gz, "found there")
    assert find_mnist("mnist.pkl.gz", tmp_path) == (mnist.path_gz, "chosen by --mnist")
    with pytest.raises(ValueError, match="--mnist=missing: there is no such file"):
        find_mnist("missing", tmp_path)
