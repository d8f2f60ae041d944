from __future__ import annotations

import numpy as np
import pytest

from spikemeter.config import load_config
from spikemeter.predictor import LatencyPredictor, changes
from spikemeter.predictor.changes import cheapest_changes
from spikemeter.predictor.differences import difference_errors, read_calibrated
from spikemeter.predictor.knobs import frame_of

DEEP = {
    "dataset": "nmnist-saccade",
    "network": "16C3-MP2-16C3-MP2-10",
    "input": {"height": 34, "width": 34},
}
CONFIDENCE = 0.9


@pytest.fixture(scope="module")
def shipped() -> LatencyPredictor:
    return LatencyPredictor.default()


@pytest.fixture(scope="module")
def runs(shipped):
    return read_calibrated(shipped, CONFIDENCE)


def found(shipped, runs, content, **options):
    return cheapest_changes(shipped, load_config(content), runs, confidence=CONFIDENCE, **options)


@pytest.fixture(scope="module")
def deep(shipped, runs):
    return found(shipped, runs, DEEP)


def tried(shipped, runs, content, space=None):
    """Candidates, by knob, as texts of what they change."""
    config = load_config(content)
    source = runs.frame if space is None else space
    found = changes._candidates(shipped, config, source, changes._varied(source), rounded=True)
    return {(each.knob.name, each.config.digest): each.config for each in found}


def test_a_change_turns_one_knob_and_says_what_it_predicts(shipped, deep):
    proposed, notes = deep
    assert 1 <= len(proposed) <= 5
    assert notes == (changes.RULE,)
    assert len({change.knob for change in proposed}) == len(proposed)
    before = load_config(DEEP)
    here = shipped.estimate(before)
    for change in proposed:
        there = shipped.estimate(change.config)
        assert change.estimate.cycles == pytest.approx(there.cycles)
        assert change.cycles == pytest.approx(there.cycles / here.cycles - 1)
        assert change.accuracy == pytest.approx(there.accuracy - here.accuracy)
        own, other = (frame_of([each]).iloc[0] for each in (before, change.config))
        keys = {key for key in own.index if repr(own[key]) != repr(other[key])}
        assert keys
        assert all(key.startswith(change.knob) for key in keys)


def test_changes_save_cycles_inside_the_domain(deep):
    for change in deep[0]:
        low, high = change.interval_cycles
        assert low < change.cycles <= -0.02
        assert change.certain == (high < 0)
        assert change.estimate.in_domain
        assert change.interval_accuracy[0] <= change.accuracy <= change.interval_accuracy[1]


def test_the_cheapest_comes_first(deep):
    costs = [max(-change.accuracy, 0) / -np.log1p(change.cycles) for change in deep[0]]
    assert costs == sorted(costs)
    assert len(costs) == 5


def test_an_accuracy_after_a_change_is_one(shipped, deep):
    before = shipped.estimate(load_config(DEEP)).accuracy
    for change in deep[0]:
        low, high = change.interval_accuracy
        assert -1e-12 <= before + low <= before + high <= 1 + 1e-12


def test_a_change_that_loses_more_accuracy_than_cycles_is_none(shipped, runs):
    for content in (DEEP, {"dataset": "nmnist-saccade", "network": "8C3-MP2-10"}):
        for change in found(shipped, runs, content, most=100)[0]:
            assert -change.accuracy <= -change.cycles


def test_what_costs_no_accuracy_comes_by_what_it_saves():
    knobs = [changes._Candidate(knob=knob, config=None) for knob in changes._TURNED[:4]]
    saved = np.array([0.1, 0.5, 0.3, 0.9])
    gained = np.array([0.01, 0.0, 0.02, -0.3])
    everything = np.ones(4, dtype=bool)
    assert changes._cheapest(knobs, saved, gained, everything) == [1, 2, 0, 3]
    assert changes._cheapest(knobs, saved, gained, everything & (saved > 0.2)) == [1, 2, 3]
    same = [knobs[0], knobs[0], knobs[1], knobs[1]]
    assert changes._cheapest(same, saved, gained, everything) == [1, 2]


def test_intervals_are_those_of_differences(shipped, runs, deep):
    errors = difference_errors(shipped, runs, CONFIDENCE)
    here = shipped.estimate(load_config(DEEP))
    for change in deep[0]:
        halves = [np.log(each.interval_cycles[1] / each.cycles) for each in (here, change.estimate)]
        half = errors.of_cycles(*halves)
        low, high = np.log1p(change.interval_cycles)
        assert (high - low) / 2 == pytest.approx(half)
        assert (high + low) / 2 == pytest.approx(np.log1p(change.cycles))
        # Narrower than if both errors were each other's stranger at the edge of their intervals.
        assert half < sum(halves)


def test_calibrated_values_of_every_training_choice_are_tried(shipped, runs):
    candidates = tried(shipped, runs, DEEP)
    knobs = {knob for knob, _ in candidates}
    assert knobs == {knob.name for knob in changes._TURNED} - {"training.loss"}  # all have one
    surrogates = {
        (config.surrogate.name, config.surrogate.slope)
        for (knob, _), config in candidates.items()
        if knob == "surrogate"
    }
    known = set(
        runs.frame[["surrogate.name", "surrogate.slope"]].itertuples(index=False, name=None)
    )
    assert surrogates <= known
    assert {name for name, _ in surrogates} == {name for name, _ in known}
    betas = [c.neuron.beta for (knob, _), c in candidates.items() if knob == "neuron.beta"]
    assert 7 <= len(betas) <= 9
    assert min(betas) < 0.4
    assert max(betas) > 0.9
    before = load_config(DEEP)
    assert before.digest not in {digest for _, digest in candidates}
    for config in candidates.values():
        assert (config.network, config.hardware, config.dataset) == (
            before.network, before.hardware, before.dataset,
        )  # fmt: skip


def test_time_steps_change_only_to_those_that_were_measured(shipped, runs):
    def steps(content):
        found = tried(shipped, runs, content)
        return {c.input.time_steps for (knob, _), c in found.items() if knob.endswith("time_steps")}

    assert steps(DEEP) == {4, 12, 16}
    assert steps({**DEEP, "input": {"height": 33, "width": 34}}) == set()
    private = {
        "network": "8C3-MP2-10",
        "input": {"time_steps": 3, "statistics": [[9.0, 9.0]] * 3},
    }
    assert steps(private) == set()


def test_a_neuron_of_r_and_c_keeps_them(shipped, runs):
    content = {**DEEP, "neuron": {"model": "lapicque", "R": 5.0, "C": 2.0}}
    knobs = {knob for knob, _ in tried(shipped, runs, content)}
    assert not knobs & {"neuron", "neuron.beta"}
    assert "neuron.threshold" in knobs


def test_a_space_says_what_may_be_turned_and_to_what(shipped, runs):
    space = frame_of(
        [
            load_config({**DEEP, "neuron": {"threshold": threshold}})
            for threshold in (1.0, 1.4567, 1.98765)
        ]
    )
    proposed, _ = found(shipped, runs, DEEP, space=space)
    assert [change.knob for change in proposed] == ["neuron.threshold"]
    assert proposed[0].before == "1"
    assert proposed[0].config.neuron.threshold in (1.4567, 1.98765)  # as they stand there
    nothing, notes = found(shipped, runs, DEEP, space=space.iloc[:1])
    assert nothing == ()
    assert notes == ("The space varies no training choice, so there is none to change.",)


def test_values_outside_the_domain_are_not_proposed(shipped, runs):
    space = frame_of(
        [load_config({**DEEP, "neuron": {"threshold": threshold}}) for threshold in (1.0, 60.0)]
    )
    proposed, notes = found(shipped, runs, DEEP, space=space)
    assert proposed == ()
    assert notes[0].endswith("so none is proposed.") or notes[0].startswith("No single change")


def test_what_is_outside_whatever_is_changed_is_named(shipped, runs):
    wide = {**DEEP, "network": "8C3-MP2-64C3-MP2-10"}
    proposed, notes = found(shipped, runs, wide)
    assert proposed == ()
    assert notes[0].startswith("This configuration lies outside the calibrated domain (network)")
    early = {**DEEP, "training": {"epochs": 2}}
    assert {change.knob for change in found(shipped, runs, early)[0]} == {"training.epochs"}


def test_where_nothing_helps_there_is_none_and_a_sentence_why(shipped, runs):
    fast = {
        "dataset": "digits-saccade",
        "network": "8C3-MP2-10",
        "input": {"time_steps": 4, "height": 12, "width": 12},
    }
    proposed, notes = found(shipped, runs, fast)
    assert proposed == ()
    assert notes[0].startswith("No single change")


def test_at_most_so_many_are_given(shipped, runs, deep):
    fewer, _ = found(shipped, runs, DEEP, most=2)
    assert [change.knob for change in fewer] == [change.knob for change in deep[0][:2]]


def test_values_are_said_for_people(shipped, runs):
    told = {}
    source, config = runs.frame, load_config(DEEP)
    for each in changes._candidates(shipped, config, source, changes._varied(source), rounded=True):
        change = changes._change(
            shipped, config, each, CONFIDENCE, cycles=(-0.1, 0.05), accuracy=(0.5, 0.0, 0.1)
        )
        told.setdefault(change.knob, (change.before, change.after))
        assert change.to_dict()["after"] == change.after
    assert told["neuron"][0] == "lif"
    assert told["surrogate"][0] == "fast_sigmoid 25"
    assert told["training.batch_norm"] == ("true", "false")
    assert told["training.lr"][0] == "0.001"
    assert told["input.time_steps"] == ("8", "4")
    low, share, high = np.expm1([-0.15, -0.1, -0.05])
    assert change.interval_cycles == pytest.approx((low, high))
    assert change.cycles == pytest.approx(share)
    assert change.interval_accuracy == (-0.1, 0.1)
