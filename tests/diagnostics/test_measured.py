import json
import math

import pytest
import torch

from vcr_zoo.diagnostics.measured import Measured, bootstrapped, jackknifed, measured


def test_no_measured_value_is_ever_nan():
    for wrong in (math.nan, math.inf):
        with pytest.raises(AssertionError):
            Measured(wrong)
    with pytest.raises(AssertionError):
        Measured(None)


def test_a_value_prints_with_its_interval_and_none_with_its_reason():
    assert f"{Measured(0.5, 0.25, 0.75):.2f}" == "0.50 [0.25, 0.75]"
    assert str(Measured(2.0)) == "2"
    assert str(Measured(None, because="undefined because of rain")) == "undefined because of rain"


def test_json_has_no_nan():
    """Strict readers refuse NaN; a reason takes its place."""
    records = [Measured(1.0).record(), Measured(None, because="undefined because x").record()]

    assert json.loads(json.dumps(records, allow_nan=False))[1] == {
        "undefined": "undefined because x"
    }


def test_what_a_statistic_refuses_becomes_a_reason():
    def refuse(_):
        raise ValueError("the rank is undefined because features are constant")

    assert measured(refuse, 1).because == "undefined because features are constant"
    assert "too large" in measured(lambda _: math.inf, 1).because


def test_the_bootstrap_covers_the_mean_at_its_level():
    """Of 200 samples of 80, about 95 % of the intervals hold the true mean, 1."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.empty(200, 80).exponential_(1.0, generator=generator)
    held = [bootstrapped(x, resamples=200) for x in samples]
    share = sum(m.low <= 1 <= m.high for m in held) / 200

    assert 0.88 <= share <= 0.98


def test_the_jackknife_of_a_mean_is_students_interval():
    """Of parts of one picture each, it is what any textbook computes for a mean."""
    x = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without = [torch.cat([x[:i], x[i + 1 :]]) for i in range(12)]
    found = jackknifed(lambda some: some.mean().item(), x, without)
    half = 2.2009851600829 * x.std().item() / 12**0.5  # t of 11 degrees of freedom

    assert found.value == pytest.approx(x.mean().item())
    assert found.high - found.value == pytest.approx(half, rel=1e-6)
    assert found.value - found.low == pytest.approx(half, rel=1e-6)


def test_an_interval_ends_where_values_do():
    assert Measured(0.5, -0.25, 1.5).within(0, 1) == Measured(0.5, 0, 1)
    assert Measured(0.5).within(0, 1) == Measured(0.5)


@pytest.mark.parametrize("values", [torch.tensor([]), torch.tensor([1.0, math.nan])])
def test_means_without_a_value_say_why(values):
    assert bootstrapped(values).because.startswith("undefined because")


def test_one_picture_has_a_mean_and_no_interval():
    assert bootstrapped(torch.tensor([0.25])) == Measured(0.25)


def test_values_that_coincide_have_no_interval():
    """Ten of ten pictures right is not certainty, nor is a statistic that no part changes."""
    assert bootstrapped(torch.ones(10)) == Measured(1.0)
    assert jackknifed(float, 2.0, [2.0, 2.0 + 1e-15]) == Measured(2.0)
