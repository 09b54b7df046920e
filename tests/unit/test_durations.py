import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.errors import ConfigError
from lockkit.values import durations


@pytest.mark.parametrize("value", [1, 0.001, 30, 30.5, durations.LONGEST])
def test_seconds_returns_a_float(value):
    got = durations.seconds(value, what="ttl")
    assert got == value
    assert type(got) is float


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        "30",
        "30s",
        [1],
        math.nan,
        math.inf,
        -math.inf,
        -1,
        -0.001,
        0,
        0.0,
        durations.LONGEST * 1.01,
        pytest.param(10**400, id="huge"),
    ],
)
def test_seconds_refuses_what_is_no_positive_number_of_seconds(value):
    with pytest.raises(ConfigError, match="ttl"):
        durations.seconds(value, what="ttl")


def test_zero_is_allowed_only_by_leave():
    assert durations.seconds(0, what="timeout", zero=True) == 0.0
    with pytest.raises(ConfigError, match=r"timeout must be at least 0, not -1$"):
        durations.seconds(-1, what="timeout", zero=True)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("30s", 30),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86_400),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("30", 30),
        ("0.5", 0.5),
        (" 30S ", 30),
        ("1m500ms", 60.5),
    ],
)
def test_parse_reads_what_people_write(text, expected):
    assert durations.parse(text, what="ttl") == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "s", "30 s x", "1w", "-5s", "0s", "0", "nan", "inf", "-inf", "1e999", "30s!", "h1", "99999d"]
)
def test_parse_refuses_the_rest(text):
    with pytest.raises(ConfigError, match="ttl"):
        durations.parse(text, what="ttl")


@given(st.text())
def test_parse_raises_nothing_but_config_errors(text):
    try:
        got = durations.parse(text, what="ttl")
    except ConfigError:
        return
    assert 0 < got <= durations.LONGEST


@pytest.mark.parametrize(
    "value, shown",
    [
        (0, "0 s"),
        (3.9e-05, "0 s"),
        (0.0046, "0.005 s"),
        (0.25, "0.25 s"),
        (12, "12 s"),
        (119, "119 s"),
        (180, "3 min"),
        (7500, "2 h 5 min"),
        (349_200, "4 d 1 h"),
    ],
)
def test_show_writes_them_as_people_do(value, shown):
    assert durations.show(value) == shown


@pytest.mark.parametrize("value, told", [(-1, "just now"), (3.9e-05, "just now"), (1, "1 s"), (180, "3 min")])
def test_an_age_below_a_second_has_no_figure(value, told):
    assert durations.age(value) == told


@pytest.mark.parametrize(
    "low, high, told",
    [
        (0.1, durations.LONGEST, "at least 0.1 s"),
        (16, 40, "16 s to 40 s"),
        (2.25, 7200, "2.25 s to 2 h"),
        (90, 7201, "90 s to 7201 s"),
    ],
)
def test_limits_are_written_for_people_and_not_rounded(low, high, told):
    assert durations.limits(low, high) == told


@pytest.mark.parametrize("word", ["forever", " Never ", "none"])
def test_a_limit_can_be_none(word):
    assert durations.limit(word, what="timeout") is None
    with pytest.raises(ConfigError, match="timeout must be a duration"):
        durations.parse(word, what="timeout")


@given(st.floats(-3e10, 2.5e11))
def test_a_time_for_programs_is_as_datetime_writes_it(at):
    told = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    assert durations.rfc3339(at) == told.replace("+00:00", "Z")
