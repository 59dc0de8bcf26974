#!/usr/bin/env bash
# A function whose first call is inside a TorchDispatchMode is never compiled by torch.compile.
#
# Version: torch 2.13.0.
# Guess:   inside the mode, the function runs as it is; its next call outside compiles it.
# Seen:    five calls outside run as they are, too, without a warning: none is compiled. A function
#          that is called outside from the first time on is compiled in each of its five calls.
# Why:     torch._dynamo.convert_frame skips a frame in a mode, and a skipped frame's code is not
#          looked at again in that process.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q numpy==2.4.6 torch==2.13.0
cat >"$folder/seen.py" <<'P'
import torch
from torch.utils._python_dispatch import TorchDispatchMode

compiled_calls = []


def backend(graph, inputs):
    def run(*args):
        compiled_calls.append(args)
        return graph.forward(*args)

    return run


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def five_calls(fn):
    compiled_calls.clear()
    for _ in range(5):
        fn(x)
    return len(compiled_calls)


@torch.compile(backend=backend)
def outside(x):
    return x * 2 + 1


@torch.compile(backend=backend)
def first_inside(x):
    return x * 2 + 1


x = torch.ones(3)
with Mode():
    first_inside(x)
print(five_calls(outside), five_calls(first_inside))
P
seen=$("$folder/venv/bin/python" "$folder/seen.py")
echo "compiled calls of five, outside and after a first call inside: $seen"
[ "$seen" = "5 0" ]
