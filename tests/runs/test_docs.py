"""Code and commands of the README and of the pages in `docs/`: they run, or at least would be understood."""

import re
import shlex
from pathlib import Path

import pytest

from purerl import evaluate, export, plot, record, sweep, train
from purerl.config import load_members

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("envs_jax/*/README.md")])
COMMANDS = {"train": train, "evaluate": evaluate, "plot": plot, "sweep": sweep, "export": export, "record": record}


def commands_of(page: Path) -> list[str]:
    """Lines `python -m purerl.NAME ...` of a page, continued ones joined; placeholders in capitals are left out."""
    text = page.read_text().replace("\\\n", " ")
    return [found for found in re.findall(r"python -m (purerl\.\w+ [^\n`&]*)", text) if "..." not in found]


LINES = [(page, line) for page in PAGES for line in commands_of(page)]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page.name}-{n}" for n, (page, _) in enumerate(LINES)])
def test_a_command_is_understood(page, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    module, *words = shlex.split(line, comments=True)
    parser = COMMANDS[module.partition(".")[2]].parser()
    parse = parser.parse_args if module in ("purerl.plot", "purerl.record") else parser.parse_intermixed_args
    args = parse(words)
    config = getattr(args, "config", None)
    if config is not None and config.exists() and module == "purerl.train":
        load_members(config, args.overrides)


def test_pages_show_commands():
    assert {page.name for page, _ in LINES} >= {"README.md", "scores.md", "devices_and_hosts.md"}


@pytest.mark.parametrize("page", ["reading_a_run.md", "scores.md"])
def test_code_about_a_finished_run_runs(page, finished_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})
    assert "points" in capsys.readouterr().out, "the unit of the probe's score"


def test_code_about_devices_runs(capsys):
    """The suite has provided four devices before; a notebook gets the two that it asks for."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "devices_and_hosts.md").read_text(), re.DOTALL)
    exec(compile(block, "devices_and_hosts.md", "exec"), {})
    assert capsys.readouterr().out.count("CpuDevice") >= 2
