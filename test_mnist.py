"""The data set: what the loader takes and refuses, and what a download leaves behind."""

import errno
import gzip
import io
import os
import pickle
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import mnist
from bench_fixtures import SAMPLE
from mnist import download_mnist, load_mnist, path_data


def some_mnist(n=5, **replacements):
    """A data set of n rows a part, and arrays by name to put in it instead."""
    generator = np.random.default_rng(0)
    parts = {}
    for part in "train", "valid", "test":
        parts[f"x_{part}"] = generator.integers(0, 256, (n, 784)).astype("f4") / 256
        parts[f"y_{part}"] = generator.integers(0, 10, n)
    arrays = list((parts | replacements).values())
    return tuple(zip(arrays[::2], arrays[1::2], strict=True))


def assert_same(loaded, expected):
    for pair, expected_pair in zip(loaded, expected, strict=True):
        for array, values in zip(pair, expected_pair, strict=True):
            np.testing.assert_array_equal(array, values)
            assert array.dtype == values.dtype and array.flags.c_contiguous


# ---- Load --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickled_by_python_2(protocol):
    first_rows = [(x[:5], y[:5]) for x, y in load_mnist(SAMPLE)]
    assert_same(load_mnist(path_data / f"python2-protocol{protocol}.pkl.gz"), first_rows)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("layout", ["C", "F", "big-endian"])
def test_pickled_by_python_3(tmp_path, protocol, layout):
    expected = some_mnist()
    x = expected[0][0]
    written = x.astype(">f4") if layout == "big-endian" else np.array(x, order=layout)
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(some_mnist(x_train=written), protocol)))
    assert_same(load_mnist(path), expected)


class Touch:
    """A pickle that would create a folder named `touched`."""

    def __reduce__(self):
        return os.mkdir, ("touched",)


def pickled(value):
    return gzip.compress(pickle.dumps(value, 2), mtime=0)


def images(value, dtype="f4", columns=784):
    return np.full((5, columns), value, dtype)


BAD_CONTENT = {
    "text": (b"not a gzip file", "BadGzipFile"),
    "cut off": (pickled(some_mnist())[:-1], "EOFError"),
    "no pickle": (gzip.compress(b"~"), "UnpicklingError"),
    "runs code": (pickled((some_mnist(), Touch())), r"it names '\w+\.mkdir'"),
    "eval": (gzip.compress(b"cbuiltins\neval\n."), "it names 'builtins.eval'"),
    "steers a terminal": (gzip.compress(b"cos\x1b[31m\nx\n."), r"names 'os\\x1b\[31m.x'"),
    "a number": (pickled(1), "TypeError"),
    "two parts": (pickled(some_mnist()[:2]), "ValueError"),
    "objects": (pickled(some_mnist(x_train=images(None, "O"))), "x_train is object"),
    "float64": (pickled(some_mnist(x_train=images(0, "f8"))), "x_train is float64"),
    "int32 labels": (pickled(some_mnist(y_test=np.zeros(5, "i4"))), "y_test is int32"),
    "783 columns": (pickled(some_mnist(x_valid=images(0, columns=783))), "x_valid is "),
    "4 rows": (pickled(some_mnist(n=4)), "x_train is "),
    "label 10": (pickled(some_mnist(y_train=np.array([2, 3, 4, 5, 10]))), "y_train has labels"),
    "label -1": (pickled(some_mnist(y_valid=np.full(5, -1))), "y_valid has labels"),
    "a pixel of 1": (pickled(some_mnist(x_test=images(1))), "x_test has values"),
    "a negative pixel": (pickled(some_mnist(x_test=images(-0.5))), "x_test has values"),
    "NaN": (pickled(some_mnist(x_test=images(np.nan))), "x_test has values"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_refused(tmp_path, monkeypatch, case):
    """One error with the file's name; nothing in the file has been called."""
    monkeypatch.chdir(tmp_path)
    content, reason = BAD_CONTENT[case]
    path = tmp_path / "bad.pkl.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.pkl\.gz: damaged, or not .*{reason}"):
        load_mnist(path)
    assert os.listdir() == ["bad.pkl.gz"]


def test_refuses_what_unpacks_to_too_much(tmp_path, monkeypatch):
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(pickled(some_mnist()))
    size = len(pickle.dumps(some_mnist(), 2))
    monkeypatch.setattr(mnist, "UNPACKED_LIMIT", size)
    load_mnist(path)
    monkeypatch.setattr(mnist, "UNPACKED_LIMIT", size - 1)
    with pytest.raises(ValueError, match="unpacks to more than"):
        load_mnist(path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        load_mnist(tmp_path / "missing")


# ---- Download ----------------------------------------------------------------------

COURSE_FILE = bytes(range(256)) * 1000
PAGES = {  # status, content, and the length that the server names if it isn't the content's
    "/whole": (200, COURSE_FILE, None),
    "/moved": (302, b"", None),
    "/gone": (404, b"no such file", None),
    "/short": (200, COURSE_FILE[:-1], None),
    "/cut": (200, COURSE_FILE[:-1], len(COURSE_FILE)),
    "/other": (200, COURSE_FILE[::-1], None),
    "/endless": (200, COURSE_FILE * 400, None),
    "/stalls": (200, COURSE_FILE[:100_000], len(COURSE_FILE)),
}


class Mirror(BaseHTTPRequestHandler):
    """A server on the loopback address; the path of the request says how it behaves."""

    timeout = 30  # seconds; a client that says nothing is left

    def do_GET(self):
        if self.path == "/babble":
            return self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        status, content, length = PAGES[self.path]
        self.send_response(status)
        self.send_header("Location", "/whole")
        self.send_header("Content-Length", length or len(content))
        self.end_headers()
        self.server.sent = 0
        try:
            for start in range(0, len(content), 2**16):
                self.wfile.write(content[start : start + 2**16])
                self.server.sent += 2**16
            if self.path == "/stalls":
                self.server.stalling.set()
                self.server.closing.wait(30)
        except OSError:
            pass  # the client has heard enough

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.stalling, server.closing = threading.Event(), threading.Event()
        server.daemon_threads = False  # so that it waits for them when it is closed
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(server, monkeypatch):
    """The server's address; `download_mnist` expects COURSE_FILE, as `git hash-object` has it."""
    monkeypatch.setattr(mnist, "MNIST_BYTES", len(COURSE_FILE))
    monkeypatch.setattr(mnist, "MNIST_BLOB", "ed99543dba99b885850a5e5a6bf95545aaa9754c")
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("page", ["whole", "moved"])
def test_download(tmp_path, mirror, page):
    dest = tmp_path / "new" / "folder" / "mnist.pkl.gz"
    assert download_mnist(dest, f"{mirror}/{page}") == dest
    assert dest.read_bytes() == COURSE_FILE
    assert os.listdir(dest.parent) == ["mnist.pkl.gz"]


@pytest.mark.parametrize(
    "page, error, message",
    [
        ("gone", OSError, "Not Found"),
        ("short", ValueError, "not the course's file"),
        ("cut", ValueError, "not the course's file"),
        ("other", ValueError, "not the course's file"),
        ("endless", ValueError, "not the course's file"),
        ("babble", OSError, "no answer in HTTP"),
        ("stalls", TimeoutError, "timed out"),
    ],
)
@pytest.mark.parametrize("before", [None, b"what was there before"])
def test_download_fails(tmp_path, mirror, server, page, error, message, before):
    dest = tmp_path / "mnist.pkl.gz"
    if before:
        dest.write_bytes(before)
    with pytest.raises(error, match=message):
        download_mnist(dest, f"{mirror}/{page}", timeout=0.2 if page == "stalls" else 30)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])
    if page == "endless":
        assert server.sent < 100 * len(COURSE_FILE)


def test_download_refused(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(OSError, match="refused"):
            download_mnist(tmp_path / "mnist.pkl.gz", url)
    assert os.listdir(tmp_path) == []


def test_download_runs_out_of_space(tmp_path, mirror, monkeypatch):
    def full(source, dest):
        raise OSError(errno.ENOSPC, "no space left", dest)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        download_mnist(tmp_path / "mnist.pkl.gz", f"{mirror}/whole")
    assert os.listdir(tmp_path) == []


def test_two_downloads_at_once(tmp_path, mirror, monkeypatch):
    dest, replace = tmp_path / "mnist.pkl.gz", os.replace
    both_have_written = threading.Barrier(2, timeout=30)

    def replace_when_both_have_written(source, dest):
        both_have_written.wait()
        replace(source, dest)

    monkeypatch.setattr(os, "replace", replace_when_both_have_written)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(download_mnist, [dest] * 2, [f"{mirror}/whole"] * 2))
    assert dest.read_bytes() == COURSE_FILE
    assert os.listdir(tmp_path) == ["mnist.pkl.gz"]


def test_download_killed(tmp_path, mirror, server):
    """Whoever kills it finds what was there before, and can start it again."""
    dest = tmp_path / "mnist.pkl.gz"
    code = "import sys, mnist; mnist.download_mnist(*sys.argv[1:], timeout=30)"
    server.stalling.clear()
    command = [sys.executable, "-c", code, dest, f"{mirror}/stalls"]
    with subprocess.Popen(command, cwd=Path(__file__).parent) as download:
        assert server.stalling.wait(30)
        download.kill()
    assert os.listdir(tmp_path) == []
    assert download_mnist(dest, f"{mirror}/whole").read_bytes() == COURSE_FILE


def test_download_shows_its_progress_on_a_terminal(tmp_path, mirror, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    download_mnist(tmp_path / "mnist.pkl.gz", f"{mirror}/whole")
    assert terminal.getvalue().startswith("\rMNIST: 0.")
    assert terminal.getvalue().endswith("\rMNIST: 0.3 of 0.3 MB\n")


def test_download_to_a_read_only_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match="this folder can't be written to"):
        download_mnist(tmp_path / "mnist.pkl.gz", "http://127.0.0.1:9/")
