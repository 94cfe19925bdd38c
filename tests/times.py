"""Where the time of the tests goes: `pytest --times` prints the time of every file and the slowest twenty tests.

What JAX reports of itself is counted: seconds and number of compilations by XLA, and seconds of turning Python into
what XLA compiles (tracing and lowering; a function traced inside another counts twice). The rest is running.
"""

from collections import Counter, defaultdict

import jax
import pytest

COMPILING = "/jax/core/compile/backend_compile_duration"
TRACING = {"/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration"}
SLOWEST = 20

spent: Counter = Counter()
"""Of this process: seconds by kind, and the number of compilations."""


def listen(event: str, seconds: float, **_) -> None:
    if event == COMPILING:
        spent.update({"compiling_s": seconds, "programs": 1})
    elif event in TRACING:
        spent["tracing_s"] += seconds


jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Hands what was spent since the last report to the process that prints, with the report."""
    report = yield
    report.user_properties = [*report.user_properties, ("spent", dict(spent))]
    spent.clear()
    return report


def pytest_terminal_summary(terminalreporter) -> None:
    files: defaultdict[str, Counter] = defaultdict(Counter)
    tests: Counter = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport):
                continue
            of_file = files[report.nodeid.partition("::")[0]]
            of_file.update(dict(report.user_properties).get("spent", {}))
            of_file["s"] += report.duration
            of_file["tests"] += report.when == "call"
            tests[report.nodeid] += report.duration
    columns = ("s", "compiling_s", "tracing_s", "programs", "tests")
    write = terminalreporter.write_line
    terminalreporter.section("time of every file")
    write(" ".join(f"{name:>11}" for name in columns))
    total: Counter = Counter()
    for name, of_file in sorted(files.items(), key=lambda item: -item[1]["s"]):
        total.update(of_file)
        write(" ".join(f"{of_file[column]:11.0f}" for column in columns) + f"  {name}")
    write(" ".join(f"{total[column]:11.0f}" for column in columns) + "  together")
    terminalreporter.section(f"slowest {SLOWEST} tests")
    for name, seconds in tests.most_common(SLOWEST):
        write(f"{seconds:8.1f} s  {name}")
