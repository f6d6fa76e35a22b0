"""The protocol of all measurements, by a clock that only the actions move."""

import pytest

from cnnctl.bench.timing import Quartiles, time_turns


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def calls():
    """What was called, with which number."""
    return []


@pytest.fixture
def make_action(clock, calls):
    """An action that takes `seconds` and, every time it has not been the last to run, 10 more."""

    def make(name, seconds):
        def act(number):
            clock.now += seconds if calls and calls[-1][0] == name else seconds + 10
            calls.append((name, number))

        return act

    return make


def test_actions_take_turns_in_the_order_given(clock, calls, make_action):
    time_turns({"b": make_action("b", 1), "a": make_action("a", 2)}, 2, clock=clock)
    assert calls == [("b", 0), ("a", 0), ("b", 1), ("a", 1)]


def test_every_call_is_timed_by_itself(clock, make_action):
    times = time_turns({"a": make_action("a", 1), "b": make_action("b", 2)}, 3, clock=clock)
    assert times == {"a": [11, 11, 11], "b": [12, 12, 12]}


def test_a_lead_in_is_called_but_not_counted(clock, calls, make_action):
    actions = {"a": make_action("a", 1), "b": make_action("b", 2)}
    times = time_turns(actions, 2, calls=2, lead_in=1, clock=clock)
    assert times == {"a": [1, 1, 1, 1], "b": [2, 2, 2, 2]}
    assert [number for name, number in calls if name == "a"] == [0, 1, 2, 3, 4, 5]


def test_a_lead_in_lasts_as_long_as_it_is_told_to(clock, calls, make_action):
    actions = {"a": make_action("a", 1), "b": make_action("b", 3)}
    times = time_turns(actions, 1, calls=1, lead_in=1, lead_in_s=14, clock=clock)
    assert times == {"a": [1], "b": [3]}
    assert [name for name, _ in calls] == ["a"] * 5 + ["b"] * 3  # 11 + 1 + 1 + 1, 13 + 3


def test_warm_up_turns_are_not_counted(clock, calls, make_action):
    times = time_turns({"a": make_action("a", 1)}, 2, warmup=3, clock=clock)
    assert times == {"a": [1, 1]}
    assert len(calls) == 5


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([0.004, 0.001, 0.003, 0.002, 0.005], (2, 3, 4)),
        ([0.001, 0.002], (1.25, 1.5, 1.75)),
        ([0.007], (7, 7, 7)),
    ],
)
def test_quartiles_are_milliseconds(seconds, expected):
    quartiles = Quartiles.of_seconds(seconds)
    assert (quartiles.q1, quartiles.median, quartiles.q3) == pytest.approx(expected)
