"""What the documents say of measurements is what the records say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADERS = [path for path in (ROOT / "configs").glob("*.yaml") if "Record:" in path.read_text()]


def test_the_tables_are_those_of_the_records():
    script = [sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"]
    ended = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.stem)
def test_a_header_names_records_that_exist(path):
    header = "".join(line.strip("# ") for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    records = re.findall(r"benchmarks/results/\w+\.json", header)
    assert records
    for record in records:
        assert (ROOT / record).exists(), record
