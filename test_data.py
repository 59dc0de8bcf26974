"""Get data: MNIST, chunks, islice, Matrix, tensors."""

import shutil
from itertools import islice

import pytest
import torch
from fastcore.test import test_close as close

import kernels
from kernels import Matrix, chunks, get_data, islice_chunks
from ladder.mnist import path_sample

VALS = [0.0, 0.0, 0.0, 0.19140625, 0.9296875, *[0.98828125] * 5]


@pytest.fixture(scope="module")
def lst1(x_train):
    return x_train[0].tolist()


@pytest.fixture(scope="module")
def img(lst1):
    return list(chunks(lst1, 28))


# ---- The lesson --------------------------------------------------------------------


@pytest.mark.parametrize("fn", [chunks, islice_chunks])
def test_chunks(lst1, fn):
    assert lst1[200:210] == VALS
    assert list(islice(fn(VALS, 5), 3)) == [VALS[:5], VALS[5:]]
    assert list(fn(VALS, 4)) == [VALS[:4], VALS[4:8], VALS[8:]]
    assert list(fn([], 5)) == []


def test_islice(lst1, img):
    it = iter(VALS)
    assert [list(islice(it, 5)) for _ in range(3)] == [VALS[:5], VALS[5:], []]
    assert list(islice_chunks(iter(lst1), 28)) == img
    assert (len(img), len(img[0]), img[20][15]) == (28, 28, 0.98828125)
    assert Matrix(img)[20, 15] == 0.98828125


def test_tensors(x_train, y_train, mnist):
    assert x_train.type() == "torch.FloatTensor"
    assert (x_train.shape, y_train.shape) == ((50_000, 784), (50_000,))
    imgs = x_train.reshape((-1, 28, 28))
    assert imgs.shape == (50_000, 28, 28)
    close(imgs[0, 20, 15], torch.tensor(0.98828125), eps=1e-9)
    assert y_train[:3].tolist() == [5, 0, 4]
    if len(mnist[0][1]) == 50_000:  # and not the sample
        assert y_train[-3:].tolist() == [8, 4, 8]


def test_get_data(tmp_path, monkeypatch):
    """It downloads the file unless it is there, then loads it."""
    path = tmp_path / "mnist.pkl.gz"
    monkeypatch.setattr(kernels, "download_mnist", lambda path: shutil.copy(path_sample, path))
    assert [len(x) for x, _ in get_data(path)] == [1000, 200, 200]
    monkeypatch.setattr(kernels, "download_mnist", None)
    assert [len(x) for x, _ in get_data(path)] == [1000, 200, 200]


# ---- Timed -------------------------------------------------------------------------

IMAGE_ROWS = {
    "chunks": lambda lst1, tensor: list(chunks(lst1, 28)),
    "islice_chunks": lambda lst1, tensor: list(islice_chunks(lst1, 28)),
    "reshape": lambda lst1, tensor: tensor.reshape(28, 28),
}
ELEMENT = {
    "list of lists": (list, lambda m: m[20][15]),
    "Matrix": (Matrix, lambda m: m[20, 15]),
    "tensor": (torch.tensor, lambda m: m[20, 15]),
}
BOTH_ENDS = {"python": lambda y: (min(y), max(y)), "torch": lambda y: (y.min(), y.max())}


@pytest.mark.benchmark(group="one image as 28 rows")
@pytest.mark.parametrize("way", IMAGE_ROWS)
def test_image_rows(timed, way, lst1, img, x_train):
    def check(rows):
        assert torch.tensor(img).equal(torch.as_tensor(rows))

    timed(check, IMAGE_ROWS[way], lst1, x_train[0])


def check_element(value):
    assert value == 0.98828125


@pytest.mark.benchmark(group="one element")
@pytest.mark.parametrize("way", ELEMENT)
def test_element(timed, way, img):
    wrap, get = ELEMENT[way]
    timed(check_element, get, wrap(img))


def check_ends(ends):
    assert ends == (0, 9)


@pytest.mark.benchmark(group="min and max")
@pytest.mark.parametrize("way", BOTH_ENDS)
def test_both_ends(timed, way, y_train):
    timed(check_ends, BOTH_ENDS[way], y_train)


def check_sample(parts):
    assert [len(x) for x, _ in parts] == [1000, 200, 200]


@pytest.mark.benchmark(group="load the sample")
def test_load(timed):
    timed(check_sample, kernels.load_mnist, path_sample)
