"""Get data: MNIST, chunks, Matrix, tensors."""

import builtins
import codecs
import errno
import gzip
import io
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import numpy as np
import pytest
import torch
from fastcore.test import test_close as close
from fastcore.test import test_eq as eq
from hypothesis import given
from hypothesis import strategies as st

import kernels
from conftest import HERE, SAMPLE, needs_fork
from kernels import Matrix, chunks, download_mnist, forked, islice_chunks, load_mnist

VALS = [0.0, 0.0, 0.0, 0.19140625, 0.9296875, *[0.98828125] * 5]


@pytest.fixture(scope="module")
def lst1(x_train):
    return x_train[0].tolist()


@pytest.fixture(scope="module")
def img(lst1):
    return list(chunks(lst1, 28))


# ---- The file ----------------------------------------------------------------------


def test_loaded_arrays(mnist, whole_mnist):
    for x, y in mnist:
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert x.shape == (len(y), 784)
        assert x.flags.writeable and x.flags.c_contiguous
        assert 0 <= x.min() and x.max() < 1
        assert set(y.tolist()) <= set(range(10))
    if whole_mnist:
        eq(mnist[0][1][-3:].tolist(), [8, 4, 8])


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickled_by_python_2(protocol):
    old = load_mnist(HERE / "data" / f"python2-protocol{protocol}.pkl.gz")
    for (x, y), (x_sample, y_sample) in zip(old, load_mnist(SAMPLE), strict=True):
        np.testing.assert_array_equal(x, x_sample[:5])
        np.testing.assert_array_equal(y, y_sample[:5])


def some_mnist(n=5, **replacements):
    """A data set of n rows a part, and arrays by name to put in it instead."""
    generator = np.random.default_rng(0)
    parts = {}
    for part in "train", "valid", "test":
        parts[f"x_{part}"] = generator.integers(0, 256, (n, 784)).astype("f4") / 256
        parts[f"y_{part}"] = generator.integers(0, 10, n)
    parts |= replacements
    arrays = list(parts.values())
    return tuple((arrays[i], arrays[i + 1]) for i in (0, 2, 4))


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("order", ["C", "F", "big-endian"])
def test_pickled_by_python_3(tmp_path, protocol, order):
    mnist = some_mnist()
    x = mnist[0][0]
    written = x.astype(">f4") if order == "big-endian" else np.array(x, order=order)
    path = tmp_path / "mnist.pkl.gz"
    pickled = pickle.dumps(some_mnist(x_train=written), protocol)
    path.write_bytes(gzip.compress(pickled))
    for part, expected in zip(load_mnist(path), mnist, strict=True):
        for array, values in zip(part, expected, strict=True):
            np.testing.assert_array_equal(array, values)
            assert array.dtype == values.dtype and array.flags.c_contiguous


class Touch:
    """A pickle that would create a folder named `touched`."""

    def __reduce__(self):
        return os.mkdir, ("touched",)


def pickled(value):
    return gzip.compress(pickle.dumps(value, 2))


BAD_CONTENT = {
    "empty": (b"", "EOFError"),
    "text": (b"not a gzip file", "BadGzipFile"),
    "truncated": (pickled(some_mnist())[:-1], "EOFError"),
    "not a pickle": (gzip.compress(b"~"), "an opcode that has no place"),
    "runs code": (pickled(Touch()), r"\.mkdir has no place"),
    "code in the tuple": (pickled((some_mnist(), Touch())), r"\.mkdir has no place"),
    "os.system": (gzip.compress(b"cos\nsystem\n."), "os.system has no place"),
    "eval": (gzip.compress(b"cbuiltins\neval\n."), "builtins.eval has no place"),
    "numpy.load": (gzip.compress(b"cnumpy\nload\n."), "numpy.load has no place"),
    "a scalar": (pickled(np.float32(1)), "scalar has no place"),
    "bytes in UTF-7": (
        gzip.compress(b"c_codecs\nencode\n(S'a'\nS'utf-7'\ntR."),
        "another encoding than latin1",
    ),
    "arguments in a string": (
        gzip.compress(b"cnumpy\ndtype\nS'f4'\nR."),
        "arguments that are not a tuple",
    ),
    "two pickles": (
        gzip.compress(pickle.dumps(some_mnist(), 2) * 2),
        "something follows the pickle",
    ),
    "a number": (pickled(1), "TypeError"),
    "a number of numbers": (pickled(((1, 2), (3, 4), (5, 6))), "three pairs of arrays"),
    "two parts": (pickled(some_mnist()[:2]), "not enough values"),
    "too many opcodes": (
        gzip.compress(b"N" * 10_000 + b"."),
        "more than 10,000 opcodes",
    ),
    "all opcodes that it may have": (gzip.compress(b"N" * 9_999 + b"."), "TypeError"),
    "a long name": (
        gzip.compress(b"c" + b"x" * 999 + b"\neval\n."),
        r"\(UnpicklingError: x{200}\)$",
    ),
    "a name that doubles": (
        gzip.compress(
            b"\x80\x02Nq\x00"
            + b"h\x00h\x00\x86q\x00" * 60
            + b"cnumpy\ndtype\nh\x00\x85R."
        ),
        "something else than f4 or i8",
    ),
    "objects": (
        pickled(some_mnist(x_train=np.array([None] * 5))),
        "else than f4 or i8",
    ),
    "float64 images": (
        pickled(some_mnist(x_train=np.zeros((5, 784)))),
        "else than f4 or i8",
    ),
    "int32 labels": (
        pickled(some_mnist(y_test=np.zeros(5, "i4"))),
        "else than f4 or i8",
    ),
    "int64 images": (
        pickled(some_mnist(x_train=np.zeros((5, 784), "i8"))),
        "x_train is int64",
    ),
    "float32 labels": (
        pickled(some_mnist(y_test=np.zeros(5, "f4"))),
        "y_test is float32",
    ),
    "783 columns": (
        pickled(some_mnist(x_valid=np.zeros((5, 783), "f4"))),
        "x_valid is ",
    ),
    "4 rows": (pickled(some_mnist(n=4)), "x_train is "),
    "a label too few": (pickled(some_mnist(y_train=np.zeros(4, "i8"))), "y_train is "),
    "label 10 at the end": (
        pickled(some_mnist(y_train=np.array([2, 3, 4, 5, 10]))),
        "y_train has labels",
    ),
    "letters that steer a terminal": (
        gzip.compress(b"cos\x1b[31m\nsystem\n."),
        r"os\?\[31m\.system has no place",
    ),
    "zeros after the pickle": (
        gzip.compress(pickle.dumps(some_mnist(), 2) + bytes(9)),
        "something follows the pickle",
    ),
    "label 10": (pickled(some_mnist(y_valid=np.full(5, 10))), "y_valid has labels"),
    "label -1": (pickled(some_mnist(y_valid=np.full(5, -1))), "y_valid has labels"),
    "a pixel of 1": (
        pickled(some_mnist(x_test=np.ones((5, 784), "f4"))),
        "x_test has values",
    ),
    "a negative pixel": (
        pickled(some_mnist(x_test=np.full((5, 784), -0.5, "f4"))),
        "x_test has values",
    ),
    "NaN": (
        pickled(some_mnist(x_test=np.full((5, 784), np.nan, "f4"))),
        "x_test has values",
    ),
}


@pytest.mark.parametrize("content", BAD_CONTENT)
def test_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    content, reason = BAD_CONTENT[content]
    path = tmp_path / "bad.pkl.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.pkl\.gz: damaged, or not .*{reason}"):
        load_mnist(path)
    eq(os.listdir(), ["bad.pkl.gz"])


def test_no_other_name():
    unpickler = kernels.ArrayUnpickler(io.BytesIO())
    needed = "numpy numpy.core.multiarray numpy._core.multiarray _codecs".split()
    modules = [*needed, "builtins", "os", "posix", "nt", "numpy.core", "numpy._core"]
    names = {
        *dir(np),
        *dir(np._core.multiarray),
        *dir(builtins),
        *dir(os),
        *dir(codecs),
    }
    found = set()
    for module in modules:
        for name in names | {"_reconstruct"}:
            with suppress(pickle.UnpicklingError):
                unpickler.find_class(module, name)
                found.add(f"{module}.{name}")
    eq(
        found,
        {"numpy.ndarray", "numpy.dtype", "_codecs.encode"}
        | {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")},
    )


WITHOUT_A_PLACE = """
    POP POP_MARK DUP FLOAT BINFLOAT PERSID BINPERSID APPEND APPENDS DICT EMPTY_DICT LIST
    EMPTY_LIST EMPTY_TUPLE INST OBJ SETITEM SETITEMS NEWOBJ NEWOBJ_EX EXT1 EXT2 EXT4 LONG4
    EMPTY_SET ADDITEMS FROZENSET BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER
""".split()


@pytest.mark.parametrize("opcode", WITHOUT_A_PLACE)
def test_opcode_without_a_place(tmp_path, opcode):
    path = tmp_path / "bad.pkl.gz"
    path.write_bytes(
        gzip.compress(b"\x80\x02(NN" + getattr(pickle, opcode) + b"\0" * 99)
    )
    with pytest.raises(ValueError, match="an opcode that has no place"):
        load_mnist(path)
    unpickler = kernels.ArrayUnpickler
    eq(unpickler.dispatch[getattr(pickle, opcode)[0]], unpickler.refuse)


def test_byte_that_is_no_opcode():
    eq(sorted(kernels.ArrayUnpickler.dispatch), list(range(256)))
    opcodes = {getattr(pickle, name)[0] for name in WITHOUT_A_PLACE}
    opcodes |= {getattr(pickle, name)[0] for name in kernels.ArrayUnpickler.OPCODES}
    for byte in set(range(256)) - opcodes - {pickle.FRAME[0]}:
        with pytest.raises(pickle.UnpicklingError, match="an opcode that has no place"):
            kernels.ArrayUnpickler(io.BytesIO(bytes([byte]) * 9)).load()


@pytest.mark.parametrize(
    "unpacked, reason",
    [
        (bytes(2**23), "unpacks to more than 1,048,576 bytes"),
        (
            b"c_codecs\nencode\nX\0\x40\0\0" + b"a" * 2**14 + b"X\6\0\0\0latin1\x86q\0"
            b"(" + b"c_codecs\nencode\nh\0R" * 100 + b"t.",
            "more than 1,048,576 bytes of arrays",
        ),
        (pickle.dumps(np.zeros(150_000, "f4"), 2), "bytes of arrays"),
    ],
    ids=["gzip", "encode", "arrays"],
)
def test_refuses_a_bomb(tmp_path, monkeypatch, unpacked, reason):
    monkeypatch.setattr(kernels, "UNPACKED_LIMIT", 2**20)
    path = tmp_path / "bomb.pkl.gz"
    path.write_bytes(gzip.compress(unpacked))
    with pytest.raises(ValueError, match=reason):
        load_mnist(path)


def test_the_limit_itself_is_allowed(tmp_path, monkeypatch):
    eq(kernels.UNPACKED_LIMIT, 2**30)
    pickled = pickle.dumps(some_mnist(), 4)
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(pickled))
    monkeypatch.setattr(kernels, "UNPACKED_LIMIT", len(pickled))
    load_mnist(path)
    monkeypatch.setattr(kernels, "UNPACKED_LIMIT", len(pickled) - 1)
    with pytest.raises(ValueError, match="unpacks to more than"):
        load_mnist(path)
    arrays = sum(array.nbytes for part in some_mnist() for array in part)
    monkeypatch.setattr(kernels, "UNPACKED_LIMIT", arrays)
    kernels.ArrayUnpickler(io.BytesIO(pickled)).load()
    monkeypatch.setattr(kernels, "UNPACKED_LIMIT", arrays - 1)
    with pytest.raises(pickle.UnpicklingError, match="bytes of arrays"):
        kernels.ArrayUnpickler(io.BytesIO(pickled)).load()


AUDITED = []
RUNS_SOMETHING = (
    "exec",
    "compile",
    "import",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
)


@sys.addaudithook
def audit(event, args):
    opens = event == "open" and AUDITED and str(args[0]) != AUDITED[0]
    if AUDITED and (opens or event.startswith(RUNS_SOMETHING)):
        AUDITED.append(event)


def loads_or_is_refused(path, content):
    """Return what the file holds, or None after one clear error. Nothing else happens."""
    path.write_bytes(content)
    AUDITED.append(str(path))
    try:
        mnist = load_mnist(path)
    except ValueError as error:
        assert str(error).startswith(
            f"{path}: damaged, or not MNIST as the course has it ("
        )
        return None
    finally:
        audited, AUDITED[:] = AUDITED[:], []
        eq(audited, [str(path)])
    for x, y in mnist:
        eq((x.dtype, y.dtype, x.shape), (np.float32, np.int64, (len(y), 784)))
        assert 0 <= x.min() and x.max() < 1 and 0 <= y.min() and y.max() <= 9
    return mnist


def flipped(content, bit):
    content = bytearray(content)
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


@pytest.fixture(scope="module")
def unpacked():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 784)).astype("f4") / 256
    return pickle.dumps(some_mnist(x_train=images), 2)


def test_cut_off_at_every_thousandth_byte(tmp_path):
    content = SAMPLE.read_bytes()
    for size in range(0, len(content), 1000):
        assert loads_or_is_refused(tmp_path / "cut", content[:size]) is None


def test_a_bit_flipped_in_every_hundredth_byte(tmp_path, unpacked):
    """Of the packed file, of which none may load; and of the pickle, where one value may change."""
    packed = gzip.compress(unpacked, mtime=1)
    for bit in range(0, 8 * len(packed), 797):
        packed_flipped = flipped(packed, bit)
        assert loads_or_is_refused(tmp_path / "packed", packed_flipped) is None
    before = loads_or_is_refused(tmp_path / "pickle", packed)
    for bit in [*range(0, 8 * 300, 3), *range(0, 8 * len(unpacked), 797)]:
        content = gzip.compress(flipped(unpacked, bit), 0)
        after = loads_or_is_refused(tmp_path / "pickle", content) or before
        pairs = zip(sum(before, ()), sum(after, ()), strict=True)
        assert sum((old != new).sum() for old, new in pairs) <= 1


SPLICES = st.sampled_from(
    [b"", b"c", b"cos\nsystem\n", b"cbuiltins\neval\n", b"R", b"b", b"(", b"t", b"\x85", b"."]
    + [b"q\0", b"h\0", b"r\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"\x8a\xff", b"I9" * 50]
) | st.binary(max_size=8)  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 40), SPLICES), max_size=4)
)
def test_spliced(tmp_path_factory, unpacked, splices):
    """Cut pieces out of a pickle, and put opcodes in their places."""
    content = unpacked
    for start, length, piece in splices:
        start %= len(content) if length % 2 else 600  # the opcodes are at the beginning
        content = content[:start] + piece + content[start + length :]
    folder = tmp_path_factory.getbasetemp()
    loads_or_is_refused(folder / "spliced", gzip.compress(content, 0))


ASKS_FOR_TOO_MUCH = {
    "a terabyte": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"a.",
    "2 GB": b"X\xff\xff\xff\x7fa.",
    "a memo of 2**31": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a long number": b"I" + b"9" * 10**6 + b"\n.",
    "nested": b"(" * 10**6 + b"t" * 10**6 + b".",
}
LOAD_ALL = """
import resource, sys, kernels
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
for path in sys.argv[1:]:
    try:
        kernels.load_mnist(path)
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"),
    reason="there is no /proc to limit memory by",
)
def test_asks_for_too_much(tmp_path):
    """Refused in a process that may not take another 300 MB."""
    paths = [tmp_path / name for name in ASKS_FOR_TOO_MUCH]
    for path in paths:
        path.write_bytes(gzip.compress(ASKS_FOR_TOO_MUCH[path.name]))
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, *paths],
        cwd=HERE, capture_output=True, text=True,
    )  # fmt: skip
    eq((done.returncode, done.stderr), (0, ""))
    lines = done.stdout.splitlines()
    eq(len(lines), len(paths))
    for line, path in zip(lines, paths, strict=True):
        assert line.startswith(f"{path}: damaged") and "MemoryError" not in line


def test_refuses_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="not a file"):
        load_mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        load_mnist(tmp_path / "missing")


def test_no_permission(tmp_path, monkeypatch):
    def denied(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(kernels, "open", denied, raising=False)
    with pytest.raises(PermissionError, match="mnist.pkl.gz"):
        load_mnist(tmp_path / "mnist.pkl.gz")


def test_load(timed):
    timed("load the sample", lambda parts: eq(len(parts), 3), load_mnist, SAMPLE)


# ---- The download ------------------------------------------------------------------

COURSE_FILE = bytes(range(256)) * 1000


class Mirror(BaseHTTPRequestHandler):
    """A server on the loopback address; the path of the request says how it behaves."""

    timeout = 30  # seconds; a client that says nothing is left

    def do_GET(self):
        if self.path == "/babble":
            return self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        status, content, length = {
            "/whole": (200, COURSE_FILE, None),
            "/moved": (302, b"", None),
            "/gone": (404, b"no such file", None),
            "/broken": (500, b"out of order", None),
            "/short": (200, COURSE_FILE[:-1], None),
            "/cut": (200, COURSE_FILE[:-1], len(COURSE_FILE)),
            "/long": (200, COURSE_FILE * 2, None),
            "/other": (200, COURSE_FILE[::-1], None),
            "/endless": (200, COURSE_FILE * 400, None),
            "/chunks": (200, b"ff\r\nabc", "chunked"),
            "/stalls": (200, COURSE_FILE[:100_000], len(COURSE_FILE)),
        }[self.path]
        self.server.sent = 0
        self.send_response(status)
        self.send_header("Location", "/whole")
        if length == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            size = len(content) if length is None else length
            self.send_header("Content-Length", size)
        self.end_headers()
        try:
            for start in range(0, len(content), 2**16):
                self.wfile.write(content[start : start + 2**16])
                self.server.sent += 2**16
            if self.path == "/stalls":
                self.server.closing.wait(30)
        except OSError:
            pass  # the client has heard enough

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def mirror_server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.closing = threading.Event()
        server.daemon_threads = False  # so that it waits for them when it is closed
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(mirror_server):
    return f"http://127.0.0.1:{mirror_server.server_port}"


@pytest.fixture
def course_file(monkeypatch):
    """`download_mnist` expects COURSE_FILE; the id is what `git hash-object` says of it."""
    blob = "ed99543dba99b885850a5e5a6bf95545aaa9754c"
    monkeypatch.setattr(kernels, "MNIST_BYTES", len(COURSE_FILE))
    monkeypatch.setattr(kernels, "MNIST_BLOB", blob)


@pytest.mark.parametrize("page", ["whole", "moved"])
def test_download(tmp_path, mirror, course_file, page):
    dest = tmp_path / "new" / "folder" / "mnist.pkl.gz"
    eq(download_mnist(dest, f"{mirror}/{page}"), dest)
    assert dest.read_bytes() == COURSE_FILE
    eq(os.listdir(dest.parent), ["mnist.pkl.gz"])
    if os.name == "posix":
        eq(dest.stat().st_mode & 0o777, 0o644)


@pytest.mark.parametrize(
    "page, error, message",
    [
        ("gone", OSError, "Not Found"),
        ("broken", OSError, "Internal Server Error"),
        ("short", ValueError, "not the course's file"),
        ("cut", ValueError, "not the course's file"),
        ("long", ValueError, "not the course's file"),
        ("other", ValueError, "not the course's file"),
        ("endless", ValueError, "not the course's file"),
        ("babble", OSError, "no answer in HTTP"),
        ("chunks", OSError, "no answer in HTTP"),
        ("stalls", TimeoutError, "timed out"),
    ],
)
@pytest.mark.parametrize("before", [None, b"what was there before"])
def test_download_fails(tmp_path, mirror, course_file, page, error, message, before):
    dest = tmp_path / "mnist.pkl.gz"
    if before:
        dest.write_bytes(before)
    with pytest.raises(error, match=message):
        download_mnist(
            dest, f"{mirror}/{page}", timeout=0.2 if page == "stalls" else 30
        )
    eq([path.read_bytes() for path in tmp_path.iterdir()], [before] if before else [])


def test_download_refused(tmp_path, course_file):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(OSError, match="refused"):
            download_mnist(tmp_path / "mnist.pkl.gz", url)
    eq(os.listdir(tmp_path), [])


def test_download_runs_out_of_space(tmp_path, mirror, course_file, monkeypatch):
    def full(source, dest):
        raise OSError(errno.ENOSPC, "no space left", dest)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        download_mnist(tmp_path / "mnist.pkl.gz", f"{mirror}/whole")
    eq(os.listdir(tmp_path), [])


def test_two_downloads_at_once(tmp_path, mirror, course_file, monkeypatch):
    dest, replace = tmp_path / "mnist.pkl.gz", os.replace
    both_have_written = threading.Barrier(2, timeout=30)

    def replace_when_both_have_written(source, dest):
        both_have_written.wait()
        eq(len(os.listdir(tmp_path)), 2)
        both_have_written.wait()
        replace(source, dest)

    monkeypatch.setattr(os, "replace", replace_when_both_have_written)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(download_mnist, [dest] * 2, [f"{mirror}/whole"] * 2))
    assert dest.read_bytes() == COURSE_FILE
    eq(os.listdir(tmp_path), ["mnist.pkl.gz"])


def test_download_stops_an_endless_answer(tmp_path, mirror, course_file, mirror_server):
    with pytest.raises(ValueError, match="not the course's file"):
        download_mnist(tmp_path / "mnist.pkl.gz", f"{mirror}/endless")
    assert mirror_server.sent < 100 * len(COURSE_FILE)


def test_download_has_a_deadline(tmp_path, mirror, course_file, monkeypatch):
    clock = iter([7, *[607] * 2, *[607.1] * 9])
    monkeypatch.setattr(kernels, "monotonic", lambda: next(clock))
    with pytest.raises(TimeoutError, match="not complete after 600 s"):
        download_mnist(tmp_path / "mnist.pkl.gz", f"{mirror}/whole", timeout=10)
    eq(len(list(clock)), 8)
    eq(os.listdir(tmp_path), [])


def test_download_shows_its_progress_on_a_terminal(
    tmp_path, mirror, course_file, monkeypatch
):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    download_mnist(tmp_path / "mnist.pkl.gz", f"{mirror}/whole")
    *lines, last = terminal.getvalue().split("\r")[1:]
    eq(last, "MNIST: 0.3 of 0.3 MB\n")
    for line in lines:
        assert re.fullmatch(r"MNIST: 0\.[012] of 0\.3 MB", line), line


@needs_fork
@pytest.mark.parametrize(
    "page, fault, timeout, left",
    [("stalls", TimeoutError, 0.3, 0), ("whole", RuntimeError, 10, 1)],
    ids=["while it comes", "before it has its name"],
)
def test_download_killed_and_started_again(
    tmp_path, mirror, course_file, monkeypatch, page, fault, timeout, left
):
    def killed(*names):
        os.kill(os.getpid(), signal.SIGKILL)

    dest = tmp_path / "mnist.pkl.gz"
    with monkeypatch.context() as patch, pytest.raises(fault):
        patch.setattr(os, "replace", killed)
        forked(lambda: download_mnist(dest, f"{mirror}/{page}"), timeout)
    parts = list(tmp_path.glob("mnist.pkl.gz.download-*.part"))
    eq(list(tmp_path.iterdir()), parts)
    eq(len(parts), left)
    eq(download_mnist(dest, f"{mirror}/whole"), dest)
    eq({*tmp_path.iterdir()}, {dest, *parts})  # another download might be on its way
    neighbours = [
        tmp_path / f"{name}.part" for name in ("mnist.pkl.gz", "mnist.pkl.gz.x")
    ]
    for neighbour in neighbours:
        neighbour.touch()
        os.utime(neighbour, (0, 0))
    if parts:
        written = parts[0].stat().st_mtime
        for age in 3600, 3600.5:
            assert parts[0].exists()
            monkeypatch.setattr(kernels, "time", lambda age=age: written + age)
            download_mnist(dest, f"{mirror}/whole")
    eq({*tmp_path.iterdir()}, {dest, *neighbours})
    assert dest.read_bytes() == COURSE_FILE


def test_download_to_a_read_only_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match="this folder can't be written to"):
        download_mnist(tmp_path / "mnist.pkl.gz", "http://127.0.0.1:9/")


def test_constants_of_the_download():
    eq(kernels.MNIST_BYTES, 17_051_982)
    eq(kernels.MNIST_BLOB, "059aba0d982e20e2ac125a3a59d89c3c2cd8b28a")
    assert kernels.MNIST_URL.startswith("https://github.com/mnielsen/neural-networks-")
    eq(download_mnist.__defaults__, (kernels.MNIST_URL, 10.0))


# ---- The lesson --------------------------------------------------------------------


def test_vals(lst1):
    eq(lst1[200:210], VALS)


@pytest.mark.parametrize(
    "way", [chunks, islice_chunks], ids=["chunks", "islice_chunks"]
)
@pytest.mark.parametrize(
    "sz, lengths",
    [(5, [5, 5]), (3, [3, 3, 3, 1]), (10, [10]), (99, [10]), (1, [1] * 10)],
)
def test_chunks(way, sz, lengths):
    parts = list(way(VALS, sz))
    eq([len(part) for part in parts], lengths)
    eq(sum(parts, []), VALS)


@pytest.mark.parametrize(
    "way", [chunks, islice_chunks], ids=["chunks", "islice_chunks"]
)
def test_chunks_of_nothing(way):
    eq(list(way([], 5)), [])
    for sz in 0, -1:
        with pytest.raises(ValueError, match=f"at least 1 item, not {sz}"):
            list(way(VALS, sz))


def test_islice():
    it = iter(VALS)
    eq(list(islice(it, 5)), VALS[:5])
    eq(list(islice(it, 5)), VALS[5:])
    eq(list(islice(it, 5)), [])


def test_islice_chunks_takes_an_iterator(lst1, img):
    eq(list(islice_chunks(iter(lst1), 28)), img)
    eq((len(img), len(img[0])), (28, 28))
    eq(img[20][15], 0.98828125)


def test_matrix(img):
    m = Matrix(img)
    eq(m[20, 15], 0.98828125)
    eq(m[0, 27], img[0][27])


def test_tensors(x_train, y_train, whole_mnist):
    eq(x_train.shape, torch.Size([50_000, 784]))
    eq(x_train.type(), "torch.FloatTensor")
    imgs = x_train.reshape((-1, 28, 28))
    eq(imgs.shape, torch.Size([50_000, 28, 28]))
    close(imgs[0, 20, 15], torch.tensor(0.98828125), eps=1e-9)
    eq(y_train.shape, torch.Size([50_000]))
    eq(y_train[:3].tolist(), [5, 0, 4])
    if whole_mnist:
        eq(y_train[-3:].tolist(), [8, 4, 8])


def test_min_and_max(y_train):
    eq((min(y_train).item(), max(y_train).item()), (0, 9))
    eq((y_train.min().item(), y_train.max().item()), (0, 9))


# ---- Timed -------------------------------------------------------------------------

IMAGE_ROWS = {
    "chunks": lambda lst1, tensor: list(chunks(lst1, 28)),
    "islice_chunks": lambda lst1, tensor: list(islice_chunks(lst1, 28)),
    "reshape": lambda lst1, tensor: tensor.reshape(28, 28),
}


@pytest.mark.parametrize("way", IMAGE_ROWS)
def test_image_rows(timed, way, lst1, img, x_train):
    def check(rows):
        eq([list(map(float, row)) for row in rows], img)

    timed("one image as 28 rows", check, IMAGE_ROWS[way], lst1, x_train[0])


@pytest.mark.parametrize("way", ["list of lists", "Matrix", "tensor"])
def test_element(timed, way, img):
    get, source = {
        "list of lists": (lambda m: m[20][15], img),
        "Matrix": (lambda m: m[20, 15], Matrix(img)),
        "tensor": (lambda m: m[20, 15], torch.tensor(img)),
    }[way]
    timed("one element", lambda value: eq(float(value), 0.98828125), get, source)


@pytest.mark.parametrize("way", ["python", "torch"])
def test_both_ends(timed, way, y_train):
    ends = {
        "python": lambda y: (min(y), max(y)),
        "torch": lambda y: (y.min(), y.max()),
    }[way]
    timed("min and max", lambda both: eq([int(y) for y in both], [0, 9]), ends, y_train)
