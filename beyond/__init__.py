"""The rungs beyond the course. They stand in the ladder in the order of these imports."""

import kernels
from beyond import cpu, gpu
