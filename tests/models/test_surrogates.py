from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from snntorch import surrogate

from spikemeter.config import SurrogateConfig
from spikemeter.models.surrogates import spike_function, surrogate_gradient

X = torch.linspace(-6, 6, 2401)


def gradient_at(x: torch.Tensor, config: SurrogateConfig) -> torch.Tensor:
    return surrogate_gradient(config)(torch.ones_like(x), x.clone())


def formula(name: str, x: float, k: float, width: float) -> float:
    """Derivatives as they are published."""
    return {
        "fast_sigmoid": lambda: 1 / (1 + k * abs(x)) ** 2,
        "atan": lambda: k / 2 / (1 + (math.pi * k * x / 2) ** 2),
        "spike_rate_escape": lambda: k * math.exp(-math.log(2) / width * abs(x - 1)),
        "sigmoid": lambda: k * math.exp(-k * abs(x)) / (1 + math.exp(-k * abs(x))) ** 2,
        "triangular": lambda: max(0.0, 1 - k * abs(x)),
        "straight_through": lambda: 1.0,
    }[name]()


@pytest.mark.parametrize(
    ("settings", "k", "width"),
    [
        ({"name": "fast_sigmoid"}, 25, 0),
        ({"name": "fast_sigmoid", "slope": 1}, 1, 0),
        ({"name": "fast_sigmoid", "width": 0.2}, (math.sqrt(2) - 1) / 0.2, 0),
        ({"name": "atan"}, 2, 0),
        ({"name": "atan", "width": 0.5}, 2 / (math.pi * 0.5), 0),
        ({"name": "spike_rate_escape"}, 25, math.log(2)),
        ({"name": "spike_rate_escape", "slope": 3, "width": 0.4}, 3, 0.4),
        ({"name": "sigmoid"}, 25, 0),
        ({"name": "sigmoid", "slope": 100}, 100, 0),
        ({"name": "triangular", "slope": 0.5}, 0.5, 0),
        ({"name": "triangular", "width": 0.25}, 2, 0),
        ({"name": "straight_through"}, 0, 0),
    ],
)
def test_gradients_are_their_formulas_far_from_the_threshold_too(
    settings: dict[str, Any], k: float, width: float
) -> None:
    found = gradient_at(X, SurrogateConfig(**settings))
    expected = [formula(settings["name"], x, k, width) for x in X.tolist()]
    assert found.isfinite().all()
    torch.testing.assert_close(found, torch.tensor(expected), rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("fast_sigmoid", surrogate.fast_sigmoid()),
        ("atan", surrogate.atan()),
        ("spike_rate_escape", surrogate.spike_rate_escape()),
        ("sso", surrogate.SSO()),
        ("straight_through", surrogate.straight_through_estimator()),
    ],
)
def test_defaults_are_snntorchs_to_the_bit(name: str, published: Any) -> None:
    incoming = torch.randn(len(X), generator=torch.Generator().manual_seed(1))
    gradients = []
    for function in (spike_function(surrogate_gradient(SurrogateConfig(name=name))), published):
        x = X.clone().requires_grad_()
        spikes = function(x)
        torch.manual_seed(7)
        spikes.backward(incoming)
        assert torch.equal(spikes, (X > 0).float())
        gradients.append(x.grad)
    if name == "spike_rate_escape":  # its decay is ln 2 / (ln 2), and its factors commute
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)
    else:
        assert torch.equal(*gradients)


@pytest.mark.parametrize("name", ["fast_sigmoid", "atan", "sigmoid", "triangular"])
def test_half_the_maximum_is_reached_at_the_half_width(name: str) -> None:
    for config in (SurrogateConfig(name=name), SurrogateConfig(name=name, width=0.3)):
        x = torch.tensor([0.0, config.half_width, -config.half_width])
        peak, right, left = gradient_at(x, config).tolist()
        assert right == pytest.approx(peak / 2, rel=1e-4)
        assert left == pytest.approx(peak / 2, rel=1e-4)


@pytest.mark.parametrize("width", [None, 0.3])
def test_the_escape_rate_is_widest_one_unit_above_the_threshold(width: float | None) -> None:
    config = SurrogateConfig(name="spike_rate_escape", slope=4, width=width)
    below, peak, above = gradient_at(
        torch.tensor([1 - config.half_width, 1, 1 + config.half_width]), config
    ).tolist()
    assert (below, peak, above) == pytest.approx((2, 4, 2), rel=1e-4)


def test_the_stochastic_operator_draws_fresh_noise_below_the_threshold() -> None:
    config = SurrogateConfig(name="sso", slope=0.4)
    torch.manual_seed(3)
    first, second = gradient_at(X, config), gradient_at(X, config)
    assert (first[X > 0] == 1).all()
    below = first[X <= 0]
    assert -0.2 <= below.min() < -0.19
    assert 0.19 < below.max() < 0.2
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(gradient_at(X, config), first)


@pytest.mark.parametrize(
    "name",
    ["fast_sigmoid", "atan", "spike_rate_escape", "sso", "sigmoid", "triangular",
     "straight_through"],
)  # fmt: skip
def test_the_incoming_gradient_is_passed_on_and_left_alone(name: str) -> None:
    gradient = surrogate_gradient(SurrogateConfig(name=name))
    x, incoming = torch.rand(50) + 0.01, torch.randn(50)
    before = incoming.clone()
    torch.testing.assert_close(
        gradient(incoming, x.clone()), gradient(torch.ones(50), x.clone()) * incoming
    )
    assert torch.equal(incoming, before)
