#!/usr/bin/env bash
# Asking Numba for its number of threads sets torch's.
#
# Versions: numba 0.68.1, torch 2.13.0 (Linux, x86-64).
# Guess:    numba.get_num_threads() reads a number, and changes nothing.
# Seen:     torch.get_num_threads() is 1 before, and 3 after. With the workqueue layer it stays 1.
# Why:      the call starts Numba's threads. Its OpenMP layer (numba/np/ufunc/omppool.cpp) calls
#           omp_set_num_threads, and torch, which has loaded the same libgomp, asks OpenMP.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6 torch==2.13.0

threads() {
  OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=3 NUMBA_THREADING_LAYER=$1 "$folder/venv/bin/python" -c '
import numba, torch
before = torch.get_num_threads()
numba.get_num_threads()
print(before, torch.get_num_threads())'
}

seen="omp: $(threads omp), workqueue: $(threads workqueue)"
echo "$seen"
[ "$seen" = "omp: 1 3, workqueue: 1 1" ]
