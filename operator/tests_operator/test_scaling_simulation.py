"""The simulator: against queueing theory, at its edges, and with the figures that the rule promises."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
from chatflow_operator.scaling.comparison import QUEUE_TARGET_S, Comparison, Setting, compare
from chatflow_operator.scaling.profile import Profile, ProfileInvalid, arrivals, day, read_csv
from chatflow_operator.scaling.rule import Rule
from chatflow_operator.scaling.scalers import CpuScaler, RuleScaler
from chatflow_operator.scaling.servers import ServerModel
from chatflow_operator.scaling.simulation import Outcome, Simulation

HOUR_S = 3600.0
MODEL = ServerModel()


def steady(rate: float, hours: float) -> Profile:
    """The same rate all the time."""
    return Profile((0.0, hours * HOUR_S), (rate, rate))


def by_the_rule(profile: Profile, least: int = 1, most: int = 20, model: ServerModel = MODEL) -> Outcome:
    """One run under the rule."""
    scaler = RuleScaler(Rule(model.slots), least, most, cooldown_s=900)
    return Simulation(arrivals(profile, 300, 1), model, scaler, max(least, 1)).run()


@pytest.fixture(scope="module")
def morning() -> Comparison:
    """From the night's trough over the ramp to the peak, ten times as high."""
    whole = day(12, 1)
    begin, end = 5 * 60, 11 * 60
    times_s = tuple(time_s - begin * 60 for time_s in whole.times_s[begin:end])
    profile = Profile(times_s, whole.rates[begin:end])
    return compare(arrivals(profile, 300, 1), Setting(MODEL, Rule(32), 1, 20, 900, 1))


def test_one_server_waits_as_pollaczek_and_khinchine_say() -> None:
    model = ServerModel(slots=1, token_gap_s=0.01, slowdown=1)
    drawn = arrivals(steady(0.5, 30), 100, 3)
    waited = Simulation(drawn, model, RuleScaler(Rule(1), 1, 1, 900), 1).run().queue_s
    variation = math.exp(0.5**2) - 1
    assert fmean(waited) == pytest.approx(0.5 * (1 + variation) / (2 * (1 - 0.5)), rel=0.08)


def test_the_rule_keeps_the_queue_short_at_little_more_than_an_oracle_pays(morning: Comparison) -> None:
    assert morning.is_quick
    assert morning.is_thrifty
    assert morning.oracle.queue_s[1] < QUEUE_TARGET_S


def test_cpu_costs_more_where_it_keeps_up_and_fails_where_it_does_not(morning: Comparison) -> None:
    tuned, usual = morning.cpu
    assert morning.cost(tuned) > morning.cost(morning.ours)
    assert usual.queue_s[1] > 100 * QUEUE_TARGET_S


def test_every_request_is_answered_once_however_servers_come_and_go() -> None:
    profile = Profile((0, HOUR_S, 1.1 * HOUR_S, 2 * HOUR_S), (1, 20, 0, 0))
    drawn = arrivals(profile, 300, 2)
    found = Simulation(drawn, MODEL, RuleScaler(Rule(32), 1, 20, 900), 1).run()
    assert len(found.queue_s) == len(drawn.times_s)
    assert min(found.queue_s) >= 0


def test_a_model_without_questions_goes_to_zero_and_the_next_question_waits_for_one_start() -> None:
    profile = Profile((0, 600, 601, 2 * HOUR_S, 2 * HOUR_S + 1, 3 * HOUR_S), (1, 1, 0, 0, 1, 1))
    found = by_the_rule(profile, least=0)
    assert {sample.ordered for sample in found.samples if HOUR_S < sample.time_s < 2 * HOUR_S} == {0}
    start_s = MODEL.start_s
    assert start_s < max(found.queue_s) < start_s + 30
    assert found.samples[-1].ready >= 1


def test_an_oracle_sleeps_too_where_the_rule_may_and_who_is_never_answered_has_waited() -> None:
    night = Profile((0.0, 6 * HOUR_S, 6 * HOUR_S + 1, 7 * HOUR_S), (0.0, 0.0, 2.0, 2.0))
    found = compare(arrivals(night, 300, 1), Setting(MODEL, Rule(32), 0, 4, 900, 1))
    assert found.oracle.gpu_hours < 2
    slow, scaler = ServerModel(start_s=2 * HOUR_S), RuleScaler(Rule(32), 0, 4, 900)
    queue_s = Simulation(arrivals(steady(1, 1), 300, 1), slow, scaler, 0).run().queue_s
    assert min(queue_s) < 0.01 * HOUR_S < 0.9 * HOUR_S < max(queue_s)


def test_a_crowd_at_once_gets_servers_within_one_start_and_a_minute() -> None:
    found = by_the_rule(Profile((0, 1800, 1810, HOUR_S), (2, 2, 12, 12)))
    enough = next(sample.time_s for sample in found.samples if sample.ready >= 5)
    assert enough < 1810 + MODEL.start_s + 60


def test_cpu_hides_the_queue_of_full_servers() -> None:
    drawn = arrivals(steady(6, 1), 300, 1)
    found = Simulation(drawn, MODEL, CpuScaler(70, 1, 20), 1).run()
    assert {sample.ordered for sample in found.samples} == {1}
    assert found.samples[-1].waiting > 1000


def test_the_same_seed_gives_the_same_requests() -> None:
    first, second, other = (arrivals(day(1, seed), 300, seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert len(first.times_s) == pytest.approx(day(1, 1).requests, rel=0.02)
    assert fmean(first.tokens) == pytest.approx(300, rel=0.02)


def test_the_day_peaks_at_ten_times_its_trough() -> None:
    rates = day(12, 1).rates
    assert max(rates) == 12
    assert min(rates) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("time,requests_per_s\n0,1\n", "no column time_s", id="a column is missing"),
        pytest.param("time_s,requests_per_s\n0,1\n60,many\n", "line 3: requests_per_s is 'many'", id="no number"),
        pytest.param("time_s,requests_per_s\n0,1\n60,-1\n", "line 3: requests_per_s is '-1'", id="below zero"),
        pytest.param("time_s,requests_per_s\n0,1\n60,\n", "line 3: requests_per_s is ''", id="empty"),
        pytest.param("time_s,requests_per_s\n60,1\n0,1\n", "line 3: time_s 0 does not follow 60", id="unsorted"),
        pytest.param("time_s,requests_per_s\n0,1\n", "1 lines of figures", id="too short"),
    ],
)
def test_a_profile_that_cannot_be_used_names_the_line(text: str, words: str) -> None:
    with pytest.raises(ProfileInvalid, match=words.replace("'", "['\"]")):
        read_csv(text)
