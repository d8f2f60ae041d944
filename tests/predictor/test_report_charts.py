"""Charts of a report: what they say of made-up effects, and their pictures without a browser."""

from __future__ import annotations

import doctest
import html
import io
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikemeter import predict_latency
from spikemeter.errors import MissingToolError
from spikemeter.predictor.planes import Plane
from spikemeter.predictor.report import style
from spikemeter.predictor.report.charts import (
    Table,
    axis,
    bars,
    dots,
    effect_axis,
    figure,
    log_axis,
    ranks_of,
    row_axis,
)
from spikemeter.predictor.report.dependence import dependence, strongest_partner
from spikemeter.predictor.report.effects import CYCLES, Effects, beeswarm, importance, spread
from spikemeter.predictor.report.landscape import (
    pareto_chart,
    pareto_front,
    parity_chart,
    plane_charts,
)
from spikemeter.predictor.report.static import picture
from spikemeter.predictor.report.style import THEME, amount, cell_text, label

pytest.importorskip("plotly")

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;\"'"


def effects(points: int = 200, seed: int = 0) -> Effects:
    """Beta does more where the threshold is high; a name does nothing to either."""
    rng = np.random.default_rng(seed)
    beta, threshold = rng.uniform(0.3, 1, points), rng.uniform(0.5, 2, points)
    network = rng.choice(["8C3-10", HOSTILE], points)
    moved = pd.DataFrame(
        {
            "neuron.beta": (beta - 0.65) * threshold,
            "neuron.threshold": -0.3 * threshold + 0.3,
            "network": np.where(network == HOSTILE, 0.2, -0.2),
        }
    )
    mean = moved.abs().mean()
    ranked = pd.DataFrame(
        {"knob": mean.index, "mean_abs": mean, "low": 0.9 * mean, "high": 1.2 * mean}
    )
    return Effects(
        scale=CYCLES,
        prefix="cycles",
        rows="configurations",
        settings=pd.DataFrame(
            {"neuron.beta": beta, "neuron.threshold": threshold, "network": network}
        ),
        moved=moved,
        ranked=ranked.sort_values("mean_abs", ascending=False, ignore_index=True),
    )


def every_text(value: object) -> list[str]:
    """Texts anywhere in the content of a figure."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    listed = isinstance(value, (dict, list, tuple))
    return [text for part in parts for text in every_text(part)] if listed else []


def test_the_examples_of_how_numbers_are_spelled_hold():
    result = doctest.testmod(style)
    assert result.attempted > 5
    assert result.failed == 0


@given(st.text())
def test_no_text_is_read_as_markup(text):
    shown = label(text)
    assert "<" not in shown
    assert ">" not in shown
    assert html.unescape(shown) == "".join(
        each if each.isprintable() else " " for each in text
    ) or shown.endswith("\N{HORIZONTAL ELLIPSIS}")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_cells_are_the_numbers_to_six_digits(value):
    assert float(cell_text(value).replace(",", "")) == pytest.approx(value, rel=1e-5, abs=0.05)


@given(st.floats(-1e9, 1e9))
def test_numbers_for_people_keep_three_digits(value):
    read = float(amount(value).replace(",", "").replace("\N{MINUS SIGN}", "-"))
    assert read == pytest.approx(value, rel=6e-3)


def test_the_colors_of_a_light_page_can_be_told_apart():
    light = [color for color, _ in THEME.values()]
    assert len(set(light)) == len(light)


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("page", [0, 1])
def test_text_has_contrast_on_light_and_dark_pages(page):
    of = {name: luminance(colors[page]) for name, colors in THEME.items()}
    grounds = dict.fromkeys(("ink", "muted", "accent", "warm"), ("paper", "panel"))
    grounds["cell"] = ("little", "some", "cold", "cool", "middle", "mild", "hot")
    for name, behind in grounds.items():
        for ground in behind:
            bright, dim = sorted((of[name], of[ground]), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, ground)


@given(st.floats(1e-3, 1e8), st.floats(1e-4, 12))
def test_logarithmic_axes_have_a_few_round_ticks_inside(low, decades):
    found = log_axis("cycles", [low, low * 10**decades])
    ticks = np.log10(found["tickvals"])
    assert 2 <= len(ticks) <= 7
    assert ((found["range"][0] <= ticks) & (ticks <= found["range"][1])).all()
    assert len(set(found["ticktext"])) == len(ticks)


@given(st.lists(st.floats(-4, 4), min_size=1))
def test_axes_of_effects_have_zero_and_rising_percents(values):
    found = effect_axis("effect", values)
    assert found["tickvals"] == sorted(found["tickvals"])
    at_zero = found["ticktext"][found["tickvals"].index(0.0)]
    assert at_zero.split() == ["0", "%"]
    assert found["range"][0] < min([0, *values])
    assert found["range"][1] > max([0, *values])


def test_ranks_share_ties_and_go_from_none_to_all():
    ranks = ranks_of(np.array([5.0, 1.0, np.nan, 5.0, 2.0]))
    np.testing.assert_allclose(ranks, [1.0, 0.0, 0.5, 1.0, 0.4])


def test_dots_of_a_swarm_stay_in_their_row_and_do_not_cover_each_other():
    values = np.random.default_rng(1).normal(size=300).round(1)
    offsets = spread(values)
    assert np.abs(offsets).max() <= 0.4
    assert len(set(zip(values, offsets, strict=True))) == len(values)


def test_importance_is_in_percent_of_cycles_with_its_interval():
    of = effects()
    chart = importance(of, 0.9)
    first = of.ranked.iloc[0]
    name, *sizes = chart.table.rows[0]
    assert name == first["knob"]
    expected = [100 * np.expm1(first[key]) for key in ("mean_abs", "low", "high")]
    np.testing.assert_allclose(sizes, expected)
    assert chart.figure.data[0].x[0] == pytest.approx(sizes[0])
    assert chart.figure.data[0].error_x.array[0] == pytest.approx(sizes[2] - sizes[0], rel=1e-6)
    assert amount(sizes[0]) in chart.text


def test_the_partner_is_the_knob_that_changes_an_effect():
    of = effects()
    assert strongest_partner(of, "neuron.beta") == "neuron.threshold"
    assert strongest_partner(of, "network") is None


def test_every_dot_stands_in_the_table():
    of = effects(points=50)
    swarm = beeswarm(of)
    assert len(swarm.table.rows) == 50
    assert sum(len(trace.x) for trace in swarm.figure.data) == 3 * 50
    column = swarm.table.columns.index("effect of neuron.beta (%)")
    found = [row[column] for row in swarm.table.rows]
    np.testing.assert_allclose(found, 100 * np.expm1(of.moved["neuron.beta"]))
    chart = dependence(of, "neuron.beta")
    np.testing.assert_allclose([row[1] for row in chart.table.rows], found)
    np.testing.assert_allclose(chart.figure.data[0].x, of.settings["neuron.beta"], rtol=1e-6)


def test_many_points_are_thinned_evenly_and_the_chart_says_how_many():
    of = effects(points=3000)
    chart = beeswarm(of)
    assert len(chart.table.rows) == 300
    assert "300" in chart.heading


def test_names_with_markup_are_text_in_figures():
    of = effects()
    for chart in (beeswarm(of), dependence(of, "network")):
        texts = every_text(chart.figure.to_plotly_json())
        assert not any("<img" in text or "</script" in text for text in texts)
        assert any("&lt;/script&gt;" in text for text in texts)


def test_the_front_is_what_no_run_beats():
    rng = np.random.default_rng(3)
    cycles, accuracy = rng.integers(1, 20, 60).astype(float), rng.integers(1, 20, 60).astype(float)
    cycles[:3], accuracy[3:5] = np.nan, np.nan
    front = pareto_front(cycles, accuracy)
    beaten = [
        np.nansum((cycles <= c) & (accuracy >= a) & ((cycles < c) | (accuracy > a))) > 0
        for c, a in zip(cycles, accuracy, strict=True)
    ]
    best = {
        (c, a)
        for c, a, out in zip(cycles, accuracy, beaten, strict=True)
        if not out and np.isfinite(c + a)
    }
    assert {(cycles[place], accuracy[place]) for place in front} == best
    assert (np.diff(cycles[front]) > 0).all()


def runs(count: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    measured = np.exp(rng.uniform(7, 12, count))
    predicted = measured * np.exp(0.1 * rng.normal(size=count))
    frame = pd.DataFrame(
        {
            "dataset": HOSTILE,
            "network": "8C3-10",
            "predicted": predicted,
            "low": predicted / 1.2,
            "high": predicted * 1.2,
            "measured": measured,
            "accuracy": rng.uniform(0.1, 0.9, count),
            "status": "ok",
            "same": rng.random(count) < 0.3,
        }
    )
    frame.loc[0, "measured"] = np.nan
    return frame


def test_predicted_stands_beside_measured_where_both_are_known():
    chart = parity_chart(runs(), 0.9)
    assert len(chart.table.rows) == 39
    assert sum(len(trace.x) for trace in chart.figure.data[1:]) == 39
    assert not any("<img" in text for text in every_text(chart.figure.to_plotly_json()))


def test_what_is_not_known_of_any_run_is_not_drawn():
    assert parity_chart(runs().assign(predicted=np.nan), 0.9) is None
    estimate = predict_latency({"dataset": "nmnist-saccade", "network": "8C3-MP2-10"})
    assert pareto_chart(runs().assign(accuracy=np.nan), estimate) is None
    chart = pareto_chart(runs(), estimate)
    assert len(chart.table.rows) == 39


def plane(inside: np.ndarray) -> Plane:
    values = np.arange(6.0).reshape(2, 3) + 1
    return Plane(
        title="lif",
        x_key="neuron.beta",
        y_key="surrogate.name",
        x=(0.5, 0.7, 0.9),
        y=("atan", HOSTILE),
        microseconds=10 * values,
        cycles=1000 * values,
        accuracy=values / 10,
        inside=inside,
        at=(1, 0),
    )


def test_cells_outside_of_the_domain_are_blank_crossed_and_told():
    inside = np.array([[True, True, False], [True, True, True]])
    accuracy, latency = plane_charts(plane(inside))
    cells, crosses, _, frame = latency.figure.data
    assert np.isnan(cells.z[0][2])
    assert (list(crosses.x), list(crosses.y)) == ([2], [0])
    assert (min(frame.x), max(frame.x), min(frame.y), max(frame.y)) == (0.5, 1.5, -0.5, 0.5)
    assert "Lowest at neuron.beta 0.5, surrogate.name atan: 10\N{NO-BREAK SPACE}µs" in latency.text
    assert "Highest at neuron.beta 0.9" in accuracy.text
    assert "1 of 6 cells" in latency.text
    assert [row[-1] for row in latency.table.rows].count(False) == 1
    nothing = plane_charts(plane(np.zeros((2, 3), dtype=bool)))[0]
    assert "No cell" in nothing.text
    assert picture(nothing.figure, half=True).startswith(b"\x89PNG")


def pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_pictures_show_the_numbers_of_the_figure():
    drawn = figure(
        [bars(np.array([2.0, 6.0]), np.arange(2), color="#ff0000", hover=["a", "b"])],
        height=200,
        yaxis=row_axis([r"$\frac{", HOSTILE]),  # not to be read as mathematics
        xaxis=axis("cycles", ends=(0, 8), nticks=4),
    )
    red = np.abs(pixels(picture(drawn)) - (255, 0, 0)).max(axis=-1) < 8
    widths = red.sum(axis=1)
    rows = widths[widths > 0]
    assert rows.max() / rows.min() == pytest.approx(3, rel=0.02)
    assert picture(drawn) == picture(drawn)


def test_pictures_have_every_kind_of_mark():
    of = effects(points=40)
    for chart in (
        beeswarm(of),
        dependence(of, "neuron.beta"),
        dependence(of, "network"),
        importance(of, 0.9),
        parity_chart(runs(), 0.9),
        plane_charts(plane(np.ones((2, 3), dtype=bool)))[0],
    ):
        image = pixels(picture(chart.figure, half=chart.half))
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 8
        assert image.shape[1] == (552 if chart.half else 888)


def test_columns_of_numbers_are_known_as_such():
    table = Table(caption="", columns=("a", "b", "c"), rows=(("x", 1.0, True), ("y", None, False)))
    assert table.numeric == (False, True, False)


@pytest.mark.parametrize("package", ["plotly.graph_objects", "matplotlib"])
def test_a_missing_package_is_named_with_its_remedy(package, monkeypatch):
    drawn = figure([dots([1.0], [2.0])], height=100, xaxis=axis("", ends=(0, 2)))
    monkeypatch.setitem(sys.modules, package, None)
    uses = {
        "matplotlib": lambda: picture(drawn),
        "plotly.graph_objects": lambda: figure([], height=9),
    }
    with pytest.raises(MissingToolError, match=r"install spikemeter\[explain\]"):
        uses[package]()
