"""The data set: what the loader takes and refuses, and what a download leaves behind."""

import gzip
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickled_by_python_2(protocol):
    first_rows = tuple((x[:5], y[:5]) for x, y in load_mnist(path_sample))
    assert_same(load_mnist(path_data / f"python2-protocol{protocol}.pkl.gz"), first_rows)


READ_ONLY = X.copy()
READ_ONLY.flags.writeable = False
STORED = {"C": X, "F": np.asfortranarray(X), ">f4": X.astype(">f4"), "read-only": READ_ONLY}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("stored", STORED)
def test_pickled_by_python_3(tmp_path, protocol, stored):
    path = tmp_path / "mnist.pkl.gz"
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
PAGES = {  # status, and content; the length promised is that of the course's file
    "/whole": (200, COURSE_FILE),
    "/moved": (302, b""),
    "/gone": (404, b""),
    "/other": (200, COURSE_FILE[::-1]),
    "/stalls": (200, COURSE_FILE[:1000]),
}


class Mirror(BaseHTTPRequestHandler):
    """A server on the loopback address; the path of the request says how it behaves."""

    def do_GET(self):
        status, content = PAGES[self.path]
        self.send_response(status)
        self.send_header("Location", "/whole")
        self.send_header("Content-Length", len(COURSE_FILE) if status == 200 else 0)
        self.end_headers()
        self.wfile.write(content)
        if self.path == "/stalls":
            self.server.closing.wait(30)

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(monkeypatch):
    """The server's address; `download_mnist` expects COURSE_FILE, as `git hash-object` has it."""
    monkeypatch.setattr(mnist, "MNIST_BYTES", len(COURSE_FILE))
    monkeypatch.setattr(mnist, "MNIST_BLOB", "ed99543dba99b885850a5e5a6bf95545aaa9754c")
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.closing = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.closing.set()
        server.shutdown()


def test_download(tmp_path, mirror):
    """From a page that has moved, as GitHub's, into a folder that isn't there yet."""
    dest = tmp_path / "new" / "mnist.pkl.gz"
    assert download_mnist(dest, f"{mirror}/moved") == dest
    assert dest.read_bytes() == COURSE_FILE and os.listdir(dest.parent) == [dest.name]


@pytest.mark.parametrize(
    "page, error, message",
    [
        ("gone", OSError, "Not Found"),
        ("other", ValueError, "not the course's file"),
        ("stalls", TimeoutError, "timed out"),
        ("whole", OSError, "no space left"),
    ],
)
def test_download_fails(tmp_path, mirror, monkeypatch, page, error, message):
    """What was there before is there still, and nothing else."""

    def full_disk(self, target):
        raise OSError("no space left")

    dest = tmp_path / "mnist.pkl.gz"
    dest.write_bytes(b"before")
    monkeypatch.setattr(type(dest), "replace", full_disk)
    with pytest.raises(error, match=message):
        download_mnist(dest, f"{mirror}/{page}", timeout=0.2 if page == "stalls" else 30)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_choice(tmp_path, monkeypatch):
    """Without a file and a network, the sample takes its place, and the reason is told."""

    def no_network(path, timeout):
        raise OSError("no network")

    monkeypatch.setattr(mnist, "path_gz", tmp_path / "mnist.pkl.gz")
    monkeypatch.setattr(mnist, "download_mnist", no_network)
    path, why = find_mnist("auto", tmp_path)
    assert path == path_sample and why.endswith("the download failed: no network")
    mnist.path_gz.touch()
    assert find_mnist("auto", tmp_path) == (mnist.path_gz, "found there")
    assert find_mnist("mnist.pkl.gz", tmp_path) == (mnist.path_gz, "chosen by --mnist")
    with pytest.raises(ValueError, match="--mnist=missing: there is no such file"):
        find_mnist("missing", tmp_path)
