"""How many faults the tests of kernels.py find: its mutants, as cosmic-ray makes them.

It changes kernels.py in one place at a time, in clones of the commit that is checked out, and runs
the tests of the chapter in which the change lies. A mutant is killed if a test fails, or if the
tests don't come to their end. SESSION is cosmic-ray's database; if it exists, what it lacks is
tested, and what survived is tested again. Survivors and score are printed. Needs ``pip install
cosmic-ray==8.7.0``, and Linux or macOS.
"""

import argparse
import multiprocessing
import os
import random
import re
import resource
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import torch
from clones import HERE, RUNNING, TESTS, clones, each, kill, stop_at_sigterm
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

# Of an operator's replacements, its neighbour and its opposite: the others are easier to find.
OPERATORS = re.compile(
    "core/(NumberReplacer|AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr|"
    "ReplaceOrWithAnd|ReplaceUnaryOperator_Delete_(Not|USub)|ZeroIterationForLoop|"
    "ReplaceBreakWithContinue|ReplaceContinueWithBreak|RemoveDecorator|ExceptionReplacer|"
    "ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Add|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul|"
    "BitAnd_BitOr|BitOr_BitAnd)|"
    "ReplaceComparisonOperator_(Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|"
    "Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is))"
)
CHAPTERS = {  # how its headline starts, and its tests
    "Get data": ["test_data.py"],
    "Random numbers": ["test_rng.py", "test_matmul.py::test_what_is_compiled_and_how"],
    "Matrix multiplication": ["test_matmul.py", "test_properties.py"],
    "Broadcasting": ["test_broadcast.py", "test_matmul.py", "test_properties.py"],
    "CUDA": ["test_cuda.py", "test_matmul.py", "test_properties.py"],
    "Past the course, on the CPU": ["test_matmul.py", "test_properties.py"],
    "Past the course, on the GPU": ["test_cuda.py", "test_properties.py"],
}
MEMORY = 2**34
SECONDS = 600
OUT_OF_TIME = f"stopped after {SECONDS} s"


def tests_of(source, line):
    """Return pytest's arguments for a line: for what is quick and near, then for its chapter."""
    lines = source.splitlines()
    headline = [text[7:] for text in lines[:line] if text.startswith("# ---- ")][-1]
    files = next(CHAPTERS[name] for name in CHAPTERS if headline.startswith(name))
    rungs = [at for at, text in enumerate(lines, 1) if text.startswith("@rung(")]
    near = [at for at in rungs if at <= line][-1:]
    near += [at for at in rungs if at > line][:1]
    names = [re.match(r"def (\w+)", lines[at]).group(1) for at in near]
    return [[*files, "-k", f"({' or '.join(names)}) and not 50000"], files]


def run_tests(folder, arguments, output):
    """Run pytest on a clone, in a process of its own that the caller can kill with its children."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(pytest.main(["-x", *TESTS, *arguments]))


def passes(folder, arguments):
    """Return whether these tests pass on a clone, and the end of what pytest prints."""
    output = folder / "output"
    process = multiprocessing.Process(
        target=run_tests, args=(folder / "clone", arguments, output)
    )
    process.start()
    RUNNING.add(process.pid)
    try:
        process.join(SECONDS)
        in_time = process.exitcode is not None
    finally:
        kill(process.pid)
        process.join()
        RUNNING.discard(process.pid)
    text = output.read_text(errors="replace")
    if not in_time:
        text += f"\n{OUT_OF_TIME}"
    # A mutant that leaves Python with the status 0 before the last test does not pass.
    came_to_its_end = re.search(r"(passed|skipped|deselected).* in \d", text)
    passed = process.exitcode in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    )
    return passed and bool(came_to_its_end), text[-2000:]


def mutated(source, mutation):
    operator = get_operator(mutation.operator_name)()
    return mutate_code(source, operator, mutation.occurrence)


def tested(folders, source, mutation):
    """Return cosmic-ray's result for a mutant."""
    folder = folders.get()
    try:
        mutant = mutated(source, mutation)
        (folder / "clone" / "kernels.py").write_text(mutant, encoding="utf-8")
        for arguments in tests_of(source, mutation.start_pos[0]):
            passed, text = passes(folder, arguments)
            if not passed:
                break
    finally:
        folders.put(folder)
    outcome = TestOutcome.SURVIVED if passed else TestOutcome.KILLED
    return WorkResult(WorkerOutcome.NORMAL, text, outcome)


def changed_lines(source, mutation):
    """Return the first line in which a mutant differs, and what it has there instead."""
    mutant = mutated(source, mutation)
    pairs = zip(source.splitlines(), mutant.splitlines(), strict=False)
    at, (old, new) = next((n, p) for n, p in enumerate(pairs, 1) if p[0] != p[1])
    return f"{at}: {mutation.operator_name[5:]}\n-{old}\n+{new}"


def places(work):
    """Where the mutants of a session are."""
    mutations = (item.mutations[0] for item in work.work_items)
    return {(m.operator_name, m.occurrence, m.start_pos, m.end_pos) for m in mutations}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("session")
    parser.add_argument("--at-once", type=int, default=2, help="(default: 2)")
    parser.add_argument(
        "--sample", type=int, help="test so many mutants at most, at random"
    )
    args = parser.parse_args()
    if args.at_once < 1:
        parser.error("--at-once is 1 or more")
    multiprocessing.set_start_method("forkserver")
    multiprocessing.set_forkserver_preload(["pytest", "torch", "numba"])
    if not torch.cuda.is_available():
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    source = (HERE / "kernels.py").read_text(encoding="utf-8")
    session = str(Path(args.session).resolve())
    os.chdir(HERE)
    with clones(args.at_once) as folders, use_db(session) as work:
        folder = folders.get()
        if source != (folder / "clone" / "kernels.py").read_text(encoding="utf-8"):
            sys.exit("kernels.py has changes that are not committed: commit them first")
        with tempfile.TemporaryDirectory() as other:
            with use_db(str(Path(other, "mutants"))) as fresh:
                init([Path("kernels.py")], fresh, {})
                if not work.num_work_items:
                    work.add_work_items(fresh.work_items)
                if places(work) != places(fresh):
                    sys.exit(f"{session} is of another kernels.py: give a new name")
        print("first, all tests without a mutant", flush=True)
        passed, text = passes(folder, [])
        if not passed:
            sys.exit(f"{text}\nthe tests fail before anything is changed")
        folders.put(folder)
        test_all(work, folders, source, args)


def test_all(work, folders, source, args):
    """Test the mutants of a session that have not been killed yet, and print what comes of it."""
    mutations = {
        item.job_id: item.mutations[0]
        for item in work.work_items
        if OPERATORS.fullmatch(item.mutations[0].operator_name)
    }
    results = {job: result for job, result in work.results if job in mutations}
    todo = [
        job for job in mutations if job not in results or not results[job].is_killed
    ]
    random.shuffle(todo)
    todo = todo[: args.sample]

    def test(job):
        return tested(folders, source, mutations[job])

    with closing(each(todo, test, args.at_once)) as found:
        for n, (job, result) in enumerate(found, 1):
            work.set_result(job, result)
            results[job] = result
            if not result.is_killed:
                print(f"survives: line {changed_lines(source, mutations[job])}")
            print(f"{n} of {len(todo)}", flush=True)
    killed = [result for result in results.values() if result.is_killed]
    late = sum(OUT_OF_TIME in result.output for result in killed)
    print(
        f"{len(mutations)} mutants, {len(results)} tested, {len(killed)} killed "
        f"({len(killed) / max(1, len(results)):.1%}), {late} of them by the limit of time"
    )


if __name__ == "__main__":
    stop_at_sigterm()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; it goes on from there when it is started again")
