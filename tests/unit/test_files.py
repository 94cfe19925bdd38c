"""Small files: what is written comes back, and damage is one line with the file and a remedy."""

import json
import math

import numpy as np
import pytest

from purerl.errors import DamagedError
from purerl.run import files

VALUE = {"name": "x", "scale": 0.1, "nested": {"list": [1, 2.5, None], "flag": True}, "array": np.arange(3.0)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "value.json"


def test_json_comes_back_and_what_is_not_finite_is_null(path):
    files.write_json(path, {**VALUE, "lost": math.nan})
    assert files.read_json(path, "") == {**VALUE, "array": [0.0, 1.0, 2.0], "lost": None}


def test_no_flipped_bit_of_a_sealed_file_goes_unnoticed(path):
    files.write_json(path, files.sealed(VALUE))
    whole, wanted = path.read_bytes(), files.read_json(path, "")
    assert "sha256" not in wanted and "sha256" in json.loads(whole)
    silent = 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            # In the name of the seal itself a flip takes the seal away and nothing else.
            silent += {key: value for key, value in files.read_json(path, "").items() if key in wanted} != wanted
        except DamagedError:
            continue
    assert silent == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b"[1]", "not a mapping"),
        (b"{}", "without 'a'"),
        (b"\xff\xfe", "not text"),
        (b'{"a": 1, "sha256": "0"}', "does not fit its sha256"),
        (b"[" * 10**5, "recursion"),
    ],
)
def test_damaged_json_is_one_line_with_file_and_remedy(path, content, why):
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"value.json: damaged \(.*\); delete it$") as raised:
        files.read_json(path, "delete it", ["a"])
    assert why in str(raised.value)


def test_csv_has_nine_digits_and_nothing_where_nothing_is_known(tmp_path):
    rows = [{"a": 1, "b": np.float32(0.1), "c": "x,y"}, {"a": None, "b": math.nan, "d": True}]
    files.write_csv(tmp_path / "new" / "t.csv", rows)
    assert (tmp_path / "new" / "t.csv").read_text() == 'a,b,c,d\n1,0.100000001,"x,y",\n,,,True\n'
    assert files.csv_text([{"b": 2, "a": 1 / 3}], ["a", "b", "c"], header=False) == "0.333333333,2,\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "No columns"),
        (b"epo\n1,2,3\n", "rows are longer than the header"),
        (b"epoch,score\n1,2,3,4\n", "rows are longer than the header"),
        (b"epoch,scor\n1,2\n", "without column 'score'"),
        (b"epoch,score\n1,2\n2,x\n", "column 'score' holds more than numbers"),
        (b"epoch,score\n1,\xff\n", "decode"),
    ],
)
def test_a_damaged_table_is_one_line_with_file_and_remedy(tmp_path, content, why):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DamagedError, match=r"t.csv: damaged \(.*\); draw again$") as raised:
        files.read_table(tmp_path / "t.csv", "draw again", ["epoch", "score"])
    assert why in str(raised.value)
