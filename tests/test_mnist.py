"""The data set: what the loader takes and refuses, and what a download leaves behind."""

import contextlib
import gzip
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urljoin

import mnist
import numpy as np
import pytest
from bench_fixtures import SAMPLE
from mnist import download_mnist, load_mnist, path_data

# ---- Load --------------------------------------------------------------------------

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
    first_rows = tuple((x[:5], y[:5]) for x, y in load_mnist(SAMPLE))
    assert_same(load_mnist(path_data / f"python2-protocol{protocol}.pkl.gz"), first_rows)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("x", [X, np.asfortranarray(X), X.astype(">f4")], ids=["C", "F", ">f4"])
def test_pickled_by_python_3(tmp_path, protocol, x):
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(pickled(protocol, x_train=x))
    assert_same(load_mnist(path), some_mnist())


BAD_CONTENT = {
    "text": (b"not a gzip file", "BadGzipFile"),
    "cut off": (pickled()[:-1], "EOFError"),
    "too big": (gzip.compress(bytes(2_000_000))[:-1], "unpacks to more than 1,000,000 bytes"),
    "runs code": (gzip.compress(b"cos\nmkdir\n(S'made'\ntR."), "it names 'os.mkdir'"),
    "steers a terminal": (gzip.compress(b"cos\x1b[31m\nx\n."), r"names 'os\\x1b\[31m.x'"),
    "two parts": (gzip.compress(pickle.dumps(some_mnist()[:2], 2)), "ValueError"),
    "float64": (pickled(x_train=X.astype("f8")), "x_train is float64"),
    "783 columns": (pickled(x_valid=X[:, 1:]), "x_valid is "),
    "4 rows": (pickled(x_train=X[:4], y_train=Y[:4]), "x_train is "),
    "int32 labels": (pickled(y_test=Y.astype("i4")), "y_test is int32"),
    "4 labels": (pickled(y_test=Y[:4]), r"y_test is int64 \(4,\), not int64 \(5,\)"),
    "label 10": (pickled(y_train=Y + 6), "y_train has labels"),
    "label -1": (pickled(y_valid=Y - 1), "y_valid has labels"),
    "a pixel of 1": (pickled(x_test=X * 2), "x_test has values"),
    "a negative pixel": (pickled(x_test=-X), "x_test has values"),
    "NaN": (pickled(x_test=np.where(X, np.nan, X)), "x_test has values"),
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


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        load_mnist(tmp_path / "missing")


# ---- Download ----------------------------------------------------------------------

COURSE_FILE = bytes(range(256)) * 1000
SIZE = len(COURSE_FILE)
PAGES = {  # status, content, and the length that the server promises
    "/whole": (200, COURSE_FILE, SIZE),
    "/moved": (302, b"", 0),
    "/gone": (404, b"", 0),
    "/cut": (200, COURSE_FILE[:-1], SIZE),
    "/other": (200, COURSE_FILE[::-1], SIZE),
    "/endless": (200, COURSE_FILE * 400, SIZE * 400),
    "/stalls": (200, COURSE_FILE[:100_000], SIZE),
}


class Mirror(BaseHTTPRequestHandler):
    """A server on the loopback address; the path of the request says how it behaves."""

    def do_GET(self):
        if self.path == "/babbles":
            return self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        status, content, length = PAGES[self.path]
        self.send_response(status)
        self.send_header("Location", "/whole")
        self.send_header("Content-Length", length)
        self.end_headers()
        self.server.sent = 0
        with contextlib.suppress(OSError):  # the client has heard enough
            for start in range(0, len(content), 2**16):
                self.wfile.write(content[start : start + 2**16])
                self.server.sent += 2**16
            if self.path == "/stalls":
                self.server.stalling.set()
                self.server.closing.wait(30)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadPoolExecutor(1) as pool, ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.stalling, server.closing = threading.Event(), threading.Event()
        server.daemon_threads = False  # so that it waits for them when it is closed
        pool.submit(server.serve_forever, 0.01)
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def mirror(server, monkeypatch):
    """The server's address; `download_mnist` expects COURSE_FILE, as `git hash-object` has it."""
    monkeypatch.setattr(mnist, "MNIST_BYTES", SIZE)
    monkeypatch.setattr(mnist, "MNIST_BLOB", "ed99543dba99b885850a5e5a6bf95545aaa9754c")
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "mnist.pkl.gz"


def test_download(dest, mirror, monkeypatch):
    """From a page that has moved, as GitHub's; a terminal sees the progress."""
    terminal = Mock(isatty=lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert download_mnist(dest, f"{mirror}/moved") == dest
    assert dest.read_bytes() == COURSE_FILE
    written = "".join(call.args[0] for call in terminal.write.call_args_list)
    assert re.fullmatch(r"(\rMNIST: 0\.\d of 0\.3 MB)+\n", written)


@pytest.mark.parametrize(
    "page, error, message",
    [
        ("gone", OSError, "Not Found"),
        ("cut", ValueError, "not the course's file"),
        ("other", ValueError, "not the course's file"),
        ("endless", ValueError, "not the course's file"),
        ("babbles", OSError, "invalid HTTP response"),
        ("http://127.0.0.1:1", OSError, "refused"),
        ("stalls", TimeoutError, "timed out"),
    ],
)
def test_download_fails(dest, mirror, server, page, error, message):
    dest.write_bytes(b"what was there before")
    with pytest.raises(error, match=message):
        download_mnist(dest, urljoin(mirror, page), timeout=0.2 if page == "stalls" else 30)
    assert [path.read_bytes() for path in dest.parent.iterdir()] == [b"what was there before"]
    assert page != "endless" or server.sent < 100 * SIZE


def test_download_to_a_read_only_folder(dest, mirror, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match="this folder can't be written to"):
        download_mnist(dest, f"{mirror}/gone")


def test_download_to_a_full_disk(dest, mirror, monkeypatch):
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        download_mnist(dest, f"{mirror}/whole")
    assert os.listdir(dest.parent) == []


def test_two_downloads_at_once(tmp_path, mirror, monkeypatch):
    """The second begins and ends just before the first would be done."""
    dest, url, replace = tmp_path / "new" / "folder" / "mnist.pkl.gz", f"{mirror}/whole", os.replace

    def replace_after_the_second(source, dest):
        monkeypatch.setattr(os, "replace", replace)
        download_mnist(dest, url)
        replace(source, dest)

    monkeypatch.setattr(os, "replace", replace_after_the_second)
    download_mnist(dest, url)
    assert dest.read_bytes() == COURSE_FILE
    assert os.listdir(dest.parent) == ["mnist.pkl.gz"]


def test_download_killed(dest, mirror, server):
    """Whoever kills it finds what was there before, and can start it again."""
    code = "import sys, mnist; mnist.download_mnist(*sys.argv[1:], timeout=30)"
    server.stalling.clear()
    command = [sys.executable, "-c", code, dest, f"{mirror}/stalls"]
    with subprocess.Popen(command, cwd=Path(__file__).parent) as download:
        assert server.stalling.wait(30)
        download.kill()
    assert os.listdir(dest.parent) == []
    assert download_mnist(dest, f"{mirror}/whole").read_bytes() == COURSE_FILE
