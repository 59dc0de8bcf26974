"""The rungs past the course. They stand in the ladder in the order of these imports."""

from beyond import cpu, microkernel, few_rows, gpu
