#!/usr/bin/env bash
# torch.mm(a, b, out=a) returns zeros.
#
# Version: torch 2.13.0, on the CPU.
# Guess:   an error, as numpy.matmul's out handles the overlap and torch refuses others; or a @ b.
# Seen:    zeros, and a is zeros; no error, no warning. numpy.matmul(a, b, out=a) gives the product.
# Why:     inferred from what is seen: the result's memory is cleared before a is read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q numpy==2.4.6 torch==2.13.0
seen=$("$folder/venv/bin/python" -W error -c '
import numpy, torch
a, b = torch.ones(4, 4), torch.ones(4, 4)
c = torch.mm(a, b, out=a)
x, y = numpy.ones((4, 4)), numpy.ones((4, 4))
z = numpy.matmul(x, y, out=x)
print(c.unique().tolist(), a.unique().tolist(), numpy.unique(z).tolist())')
echo "torch, its operand, numpy: $seen"
[ "$seen" = "[0.0] [0.0] [4.0]" ]
