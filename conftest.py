"""The operands of the lesson, and where its rungs are. The harness is in the folder ladder.

torch is imported where it is needed, so that `pytest-benchmark compare`, which reads this file,
starts fast.
"""

import pytest

pytest_plugins = ["ladder.plugin", "pytester"]  # the latter for tests/test_run.py


def pytest_ladder_import_rungs():
    """Import the rungs: beyond/__init__.py imports the course's first, then those beyond it."""
    import beyond  # noqa: F401
    from beyond.cpu.registers import LANES

    return {"simd": f"{32 * LANES}-bit SIMD"}


def repeated_to_50_000(array):
    """Return a tensor of 50,000 rows; numpy.resize repeats those of the sample until it is full."""
    from numpy import resize
    from torch import tensor

    return tensor(resize(array, (50_000, *array.shape[1:])))


@pytest.fixture(scope="session")
def x_train(mnist):
    return repeated_to_50_000(mnist[0][0])  # (50000, 784)


@pytest.fixture(scope="session")
def y_train(mnist):
    return repeated_to_50_000(mnist[0][1])  # (50000,)


@pytest.fixture(scope="session")
def weights():
    """(784, 10). The notebook doesn't seed its weights, so its t1 has other values."""
    from torch import Generator, randn

    return randn(784, 10, generator=Generator().manual_seed(1))


@pytest.fixture(scope="session")
def m1(mnist):
    from torch import tensor

    x_valid, _ = mnist[1]
    return tensor(x_valid[:5])


@pytest.fixture(scope="session")
def m2(weights):
    return weights


@pytest.fixture(scope="session")
def t1(m1, m2):
    """The reference: the three loops' product, (5, 10)."""
    from kernels import matmul_loops

    return matmul_loops(m1, m2)


@pytest.fixture(scope="session")
def tr(x_train, weights):
    """The reference for the full shape: the broadcast version's product, (50000, 10)."""
    from kernels import matmul_broadcast

    return matmul_broadcast(x_train, weights)


def pytest_ladder_draw(config, folder):
    """What the course draws."""
    from ladder.figures import save

    train, _, _ = config.pluginmanager.get_plugin("ladder-session").load_data()
    images, _ = train
    save(draw_lesson, images[0], folder / "lesson.png")
    return ["lesson.png"]


def draw_lesson(figure, digit):
    """A digit (784,), 50 random numbers, and how often 10,000 of them fall into each tenth."""
    from kernels import rand, seed

    seed(457428938475)
    numbers = [rand() for _ in range(10_000)]
    figure.set_size_inches(9, 3)
    image, line, histogram = figure.subplots(1, 3)
    image.imshow(digit.reshape(28, 28), cmap="gray")
    line.plot(numbers[:50], marker=".")
    line.set(ylim=(-0.03, 1.03), title="50 random numbers")
    histogram.hist(numbers, range=(0, 1), edgecolor="white")
    histogram.axhline(len(numbers) / 10, color="black", linestyle="--", linewidth=1)
    histogram.set(title=f"{len(numbers):,} of them")
