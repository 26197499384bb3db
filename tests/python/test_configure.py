"""culm.configure(): settings are read and changed as a whole, and nonsense is refused before anything changes."""

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import culm


@pytest.fixture(autouse=True)
def settings_are_put_back() -> Iterator[None]:
    """Each test begins and ends with the settings that were there."""
    before = culm.configure()
    yield
    culm.configure(**dataclasses.asdict(before))


def test_without_arguments_it_reads_the_defaults() -> None:
    assert culm.configure() == culm.Settings(
        shrink_after=1.0,
        shrink_budget=32 << 20,
        pool_budget=64 << 20,
        react_to_pressure=True,
        exact_peaks=False,
        on_overflow="end_process",
    )


def test_what_is_not_given_stays() -> None:
    assert culm.configure(shrink_after=0.25).shrink_budget == 32 << 20
    changed = culm.configure(shrink_budget=0, react_to_pressure=False)
    assert (changed.shrink_after, changed.shrink_budget, changed.react_to_pressure) == (0.25, 0, False)
    assert culm.configure() == changed
    assert culm.configure(shrink_after=None).shrink_after is None
    assert culm.configure(shrink_budget=1).shrink_after is None


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        culm.configure().shrink_budget = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shrink_after": "1"}, TypeError, "shrink_after must be a number of seconds or None, not str"),
        ({"shrink_after": True}, TypeError, "shrink_after must be a number of seconds or None, not bool"),
        ({"shrink_after": float("nan")}, ValueError, "shrink_after must be a number of seconds, not NaN"),
        ({"shrink_after": -0.1}, ValueError, "shrink_after must be from 0 to 1e.09 seconds, got -0.1"),
        ({"shrink_after": float("inf")}, ValueError, "got inf; None means never"),
        ({"shrink_after": 10**400}, ValueError, "shrink_after must be from 0 to"),
        ({"shrink_budget": 1.5}, TypeError, "shrink_budget must be an int of bytes, not float"),
        ({"shrink_budget": None}, TypeError, "shrink_budget must be an int of bytes, not NoneType"),
        ({"shrink_budget": -1}, ValueError, "shrink_budget must be from 0 to 2..62 bytes, got -1"),
        ({"pool_budget": 1 << 63}, ValueError, "pool_budget must be from 0 to 2..62 bytes"),
        ({"pool_budget": False}, TypeError, "pool_budget must be an int of bytes, not bool"),
        ({"react_to_pressure": 1}, TypeError, "react_to_pressure must be True or False, not int"),
        ({"exact_peaks": "yes"}, TypeError, "exact_peaks must be True or False, not str"),
        ({"shrink_afer": 1}, TypeError, "unexpected keyword argument 'shrink_afer'"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(arguments: dict[str, Any], error: type, message: str) -> None:
    before = culm.configure()
    with pytest.raises(error, match=message):
        culm.configure(**{"shrink_budget": 12345, **arguments})
    assert culm.configure() == before


def test_arguments_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        culm.configure(1.0)  # type: ignore[misc]


def test_the_largest_values_are_taken() -> None:
    changed = culm.configure(shrink_after=1e9, shrink_budget=1 << 62, pool_budget=1 << 62)
    assert culm.configure() == changed


def test_threads_may_change_different_settings_at_once() -> None:
    def change(name: str) -> None:
        for value in range(200):
            culm.configure(**{name: value})

    threads = [threading.Thread(target=change, args=(name,)) for name in ("shrink_budget", "pool_budget")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settings = culm.configure()
    assert (settings.shrink_budget, settings.pool_budget) == (199, 199)
