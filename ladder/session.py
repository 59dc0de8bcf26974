"""A run of pytest: which tests it collects, and what it says and saves at its end."""

import sys
from contextlib import nullcontext
from functools import cache

import pytest

from ladder.mnist import load_mnist
from ladder.report import report
from ladder.run import Run, describe
from ladder.rungs import RUNGS
from ladder.text import encodable

load_once = cache(load_mnist)


class Session:
    """The hooks of a run that has been configured."""

    def __init__(self, config, about, data, shapes):
        self.config = config
        self.about = about  # the machine, libraries, settings: `Run.about`, but for the rungs
        self.data = data  # the path of MNIST, and why it is that one
        self.shapes = shapes  # of --shape
        self.untimed = {}  # {(rung, shape): the reason why it was not timed}
        self.saved = None  # what pytest-benchmark saves, once it has

    def pytest_report_header(self):
        about, (path, why) = self.about, self.data
        without = "none; its rungs are tried in Numba's simulator, and not timed"
        if not about["simulated"]:
            without = "none, and no simulator: Numba was imported before this run could choose it"
        cpu = f"{about['cores']} cores ({about['why_cores']}), {about['threads']}"
        lines = [
            f"mnist: {path} ({why})",
            f"gpu: {about.get('gpu', without)}",
            f"cpu: {cpu}, {about['simd']}" if "simd" in about else f"cpu: {cpu}",
        ]
        return lines + [f"set: {name}={value}" for name, value in about["settings"].items()]

    def load_data(self):
        """Return MNIST as `load_mnist` does, read once."""
        return load_once(self.data[0])

    # ---- What is collected ---------------------------------------------------------

    def pytest_generate_tests(self, metafunc):
        """Give a test of ``rung, shape`` all rungs of its device, with their shapes or --shape."""
        if not {"rung", "shape"} <= set(metafunc.fixturenames):
            return
        device = "cuda" if metafunc.definition.get_closest_marker("cuda") else "cpu"
        cases = []
        for rung in RUNGS.values():
            if rung.device == device:
                for shape in self.shapes or rung.shapes:
                    cases.append((rung.name, str(shape)))
        metafunc.parametrize("rung, shape", cases, indirect=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        """Deselect what was not asked for, and prove everything before anything is timed."""
        kept, dropped = [], []
        for item in items:
            if self.is_asked_for(item):
                kept.append(item)
            else:
                dropped.append(item)
        if dropped:
            self.config.hook.pytest_deselected(items=dropped)
        items[:] = sorted(kept, key=is_benchmark)

    def is_asked_for(self, item):
        if item.get_closest_marker("tile") and "tile" not in self.config.getoption("markexpr"):
            return False
        if self.shapes:
            return item.get_closest_marker("ladder") is not None
        return is_benchmark(item) or not self.config.getoption("benchmark_only")

    # ---- What was not timed, and why -----------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if item.get_closest_marker("ladder") and "time_rung" in item.fixturenames:
            case = item.callspec.params["rung"], item.callspec.params["shape"]
            if report.failed:
                self.untimed[case] = f"it failed: {reason(call.excinfo)}"
            elif report.skipped:
                self.untimed[case] = report.longrepr[2].removeprefix("Skipped: ")
            elif report.when == "call":
                self.untimed.pop(case, None)  # it may have failed before, and was run again
        if report.failed and "benchmark" in getattr(item, "funcargs", {}):
            item.funcargs["benchmark"].skipped = True  # or it warns that it was not used
        return report

    # ---- What is saved and said ----------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info):
        for key in "hz_actual", "hz_actual_friendly":  # they would make every two runs differ
            machine_info["cpu"].pop(key, None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_json(self, output_json):
        untimed = [
            {"rung": rung, "shape": shape, "reason": reason}
            for (rung, shape), reason in self.untimed.items()
        ]
        rungs = describe(RUNGS.values())
        output_json["ladder"] = {"rungs": rungs, "untimed": untimed, **self.about}
        if not self.config.getoption("benchmark_save_data"):
            for bench in output_json["benchmarks"]:
                bench["stats"].pop("data", None)
        self.saved = output_json

    def pytest_keyboard_interrupt(self, excinfo):
        self.about["interrupted"] = excinfo.typename

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session):
        """Say at the very end what the run has measured, and draw it, whatever else has failed."""
        if session.testscollected and "interrupted" not in self.about:
            self.measure_at_the_end()
        try:
            return (yield)
        except OSError as error:  # pytest-benchmark could not write
            self.say(f"ERROR: this run could not be saved: {error}", "red")
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        finally:  # also if pytest-benchmark raises, as it does for a regression
            self.tell()

    def measure_at_the_end(self):
        from ladder.timing import count_torch_calls, time_noisy_again

        try:
            time_noisy_again(self.config)
            count_torch_calls(self.config)
        except KeyboardInterrupt:
            self.about["interrupted"] = "KeyboardInterrupt"
        except Exception as error:  # a rung that fails only now
            self.about["notes"].append(f"at the end of the run: {type(error).__name__}: {error}")

    def tell(self):
        benchmarks = self.config._benchmarksession
        timed = [bench for bench in benchmarks.benchmarks if bench and not bench.has_error]
        if timed or (self.untimed and not benchmarks.disabled):
            run = Run(self.saved or self.unsaved(timed))
            for line, style in report(run, self.width()):
                self.say(line, style)
            if folder := self.config.getoption("figures"):
                self.say(self.draw(run, self.config.invocation_params.dir / folder))
            if page := self.config.getoption("page"):
                self.say(self.write_page(run, self.config.invocation_params.dir / page))
        for line in self.about["notes"]:
            self.say(f"note: {line}")
        if benchmarks.disabled and (benchmarks.json or benchmarks.save or benchmarks.autosave):
            self.say("note: nothing is saved, as --benchmark-disable times nothing")

    def width(self):
        if self.config.pluginmanager.has_plugin("terminalreporter"):
            return self.config.get_terminal_writer().fullwidth
        return 100

    def unsaved(self, timed):
        """Return what pytest-benchmark would save of this run, by its own hooks."""
        saved = self.config.hook.pytest_benchmark_generate_json(
            config=self.config,
            benchmarks=timed,
            include_data=False,
            machine_info=self.config._benchmarksession.get_machine_info() if timed else {},
            commit_info={},
        )
        self.config.hook.pytest_benchmark_update_json(
            config=self.config, benchmarks=timed, output_json=saved
        )
        return saved

    def draw(self, run, folder):
        """Draw the run and the lesson; return what to say of it."""
        from ladder import figures

        try:
            names = figures.draw(folder, run)
            for more in self.config.hook.pytest_ladder_draw(config=self.config, folder=folder):
                names += more
            return f"drawn in {folder}: {', '.join(names)}"
        except Exception as error:  # the times matter more than their picture
            return f"not drawn: {type(error).__name__}: {error}".partition("\n")[0]

    def write_page(self, run, path):
        """Write the run as a page; return what to say of it."""
        from ladder.page.command import write

        try:
            write(path, {"this run": run})
            return f"written: {path}"
        except Exception as error:  # the times matter more than their page
            return f"not written: {path}: {type(error).__name__}: {error}".partition("\n")[0]

    def say(self, line, style=""):
        line = encodable(line, getattr(sys.stdout, "encoding", None))
        if reporter := self.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.write_line(line, **({style: True} if style else {}))
            return
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            print(line)


def is_benchmark(item):
    return "benchmark" in getattr(item, "fixturenames", ())  # other plugins' items have none


def reason(excinfo):
    """Return an error as one line: its type, and its first line.

    Numba's errors begin with the stage of the compiler that failed, and end with the argument.
    """
    lines = str(excinfo.value).splitlines() or [""]
    arguments = [line.strip("- ") for line in lines if "Cannot determine Numba type of" in line]
    return f"{excinfo.typename}: {(arguments or lines)[0]}"
