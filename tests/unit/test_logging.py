"""Metrics of a chunk of updates on the host: what counts how often, and what becomes one number."""

import numpy as np

from purerl.run.metrics import by_seed, first_bad_metric, host_metrics, mean_over_seeds

METRICS = {
    "loss": np.array([1.0, 2.0, 6.0]),
    "episode/return": np.array([0.0, 10.0, 4.0]),
    "episode/return_min": np.array([0.0, 7.0, 2.0]),
    "episode/return_max": np.array([0.0, -1.0, -3.0]),
    "episode/count": np.array([0, 1, 2]),
    "agent_steps": np.array([5, 6, 7]),
}


def test_values_count_as_often_as_they_happened():
    chunk = host_metrics(METRICS)
    assert {name: by_seed(series) for name, series in chunk.series.items()} == {
        "loss": [3.0],
        "episode/return": [6.0],
        "episode/return_min": [2.0],
        "episode/return_max": [-1.0],
    }
    assert chunk.episodes.tolist() == [[0], [1], [2]] and chunk.agent_steps.sum() == 18


def test_where_nothing_happened_there_is_no_number():
    series = host_metrics(METRICS).series
    first = {name: by_seed(values, slice(0, 1)) for name, values in series.items()}
    assert first.pop("loss") == [1.0]
    assert set(map(tuple, first.values())) == {(None,)}
    assert mean_over_seeds([None, 3.0, 5.0]) == 4.0 and mean_over_seeds([None]) is None


def test_seeds_are_kept_apart_until_the_end():
    lowest = host_metrics({"episode/return_min": np.array([[3.0, 8.0], [1.0, 9.0]]), "episode/count": np.ones((2, 2))})
    assert by_seed(lowest.series["episode/return_min"]) == [1.0, 8.0]


def test_metrics_without_episodes_have_none():
    chunk = host_metrics({"loss": np.array([1.0, 2.0])})
    assert chunk.episodes.tolist() == chunk.agent_steps.tolist() == [[0], [0]]


def test_the_first_bad_value_is_found():
    series = host_metrics({"a": np.array([0.0, 0.0, np.nan]), "b": np.array([[0.0, 0.0], [0.0, np.inf], [0.0, 0.0]])})
    bad = first_bad_metric(series.series)
    assert bad is not None and (bad.name, bad.update, bad.seed) == ("b", 1, 1)
    assert first_bad_metric(host_metrics(METRICS).series) is None
