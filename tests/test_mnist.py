"""The data set: what the loader takes and refuses, and what a download leaves behind."""

import gzip
import os
import pickle

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


def assert_same(loaded, expected):
    for array, values in zip(sum(loaded, ()), sum(expected, ()), strict=True):
        np.testing.assert_array_equal(array, values, strict=True)
        assert array.flags.c_contiguous and array.flags.writeable


READ_ONLY = X.copy()
READ_ONLY.flags.writeable = False
STORED = {"C": X, "F": np.asfortranarray(X), ">f4": X.astype(">f4"), "read-only": READ_ONLY}


@pytest.mark.parametrize("stored", STORED)
def test_pickles(tmp_path, stored):
    """Of Python 2, and of each protocol of Python 3."""
    first_rows = tuple((x[:5], y[:5]) for x, y in load_mnist(path_sample))
    for protocol in 0, 2:
        assert_same(load_mnist(path_data / f"python2-protocol{protocol}.pkl.gz"), first_rows)
    path = tmp_path / "mnist.pkl.gz"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickled(protocol, x_train=STORED[stored]))
        assert_same(load_mnist(path), some_mnist())


BAD_CONTENT = {
    "text": (b"not a gzip file", "BadGzipFile"),
    "cut off": (pickled()[:-1], "EOFError"),
    "too big": (gzip.compress(bytes(2_000_000))[:-1], "unpacks to more than 1,000,000 bytes"),
    "runs code": (gzip.compress(b"cos\nmkdir\n(S'made'\ntR."), "it names 'os.mkdir'"),
    "hides code": (gzip.compress(b"\x80\x04\x8c\x05numpy\x8c\x07os.path\x93."), "numpy.os.path"),
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
    path = tmp_path / "bad.pkl.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.pkl\.gz: damaged, or not .*{reason}"):
        load_mnist(path)
    assert os.listdir() == ["bad.pkl.gz"]


# ---- Download ----------------------------------------------------------------------

COURSE_FILE = bytes(range(256)) * 1000


@pytest.fixture
def url(tmp_path, monkeypatch):
    """Where a file is that `download_mnist` takes for the course's, as `git hash-object` has it."""
    monkeypatch.setattr(mnist, "MNIST_BYTES", len(COURSE_FILE))
    monkeypatch.setattr(mnist, "MNIST_BLOB", "ed99543dba99b885850a5e5a6bf95545aaa9754c")
    (tmp_path / "source").write_bytes(COURSE_FILE)
    return (tmp_path / "source").as_uri()


def test_download(tmp_path, url):
    """Into a folder that isn't there yet."""
    dest = tmp_path / "new" / "mnist.pkl.gz"
    assert download_mnist(dest, url) == dest
    assert dest.read_bytes() == COURSE_FILE and os.listdir(dest.parent) == [dest.name]


@pytest.mark.parametrize("content, error, message", [
    (None, OSError, "urlopen error"), (COURSE_FILE[::-1], ValueError, "not the course's file"),
    (COURSE_FILE + b"more", ValueError, "not the course's file"),
    (COURSE_FILE, OSError, "no space left"),
])  # fmt: skip
def test_download_fails(tmp_path, url, monkeypatch, content, error, message):
    """What was there before is there still, and nothing else."""

    def full_disk(self, target):
        raise OSError("no space left")

    dest = tmp_path / "data" / "mnist.pkl.gz"
    dest.parent.mkdir()
    dest.write_bytes(b"before")
    (tmp_path / "source").write_bytes(content) if content else (tmp_path / "source").unlink()
    monkeypatch.setattr(type(dest), "replace", full_disk)
    with pytest.raises(error, match=message):
        download_mnist(dest, url)
    assert [path.read_bytes() for path in dest.parent.iterdir()] == [b"before"]


def test_choice(tmp_path, monkeypatch):
    """Without a file and a network, the sample takes its place, and the reason is told."""
    monkeypatch.setattr(mnist, "path_gz", tmp_path / "mnist.pkl.gz")
    monkeypatch.setattr(download_mnist, "__defaults__", ("http://127.0.0.1:9", 1))  # nobody's
    path, why = find_mnist("auto", tmp_path)
    assert path == path_sample and "the download failed: <urlopen error" in why
    mnist.path_gz.touch()
    assert find_mnist("auto", tmp_path) == (mnist.path_gz, "found there")
    assert find_mnist("mnist.pkl.gz", tmp_path) == (mnist.path_gz, "chosen by --mnist")
    with pytest.raises(ValueError, match="--mnist=missing: there is no such file"):
        find_mnist("missing", tmp_path)
