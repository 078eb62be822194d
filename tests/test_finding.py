"""What a comparison found in one sentence, for the index and the README: nobody types it."""

from typing import Any

import pytest

from recseg.book import finding


def comparison(low: float, high: float) -> dict[str, Any]:
    """As `recseg compare` writes it, as far as the sentence and the table read it."""
    keys = ("miou", "label_set_f1", "count_accuracy")
    gap = {"value": (low + high) / 2, "low": low, "high": high}
    means = {"recurrent": 0.5, "recurrent: own pixels": 0.4, "dense": 0.45}
    return {
        "images": 421,
        "runs": {"recurrent": [{"updates": 6000}, {"updates": 6000}], "dense": [{"updates": 6000}]},
        "rows": {name: {"mean": dict.fromkeys(keys, mean)} for name, mean in means.items()},
        "differences": [
            {"of": "recurrent", "minus": name, **dict.fromkeys(keys, gap)}
            for name in ("recurrent: own pixels", "dense")
        ],
    }


def test_the_sentence_says_what_was_measured_and_how_sure_it_is() -> None:
    said = finding.sentence(comparison(0.03, 0.07))
    assert "scores 50.0 % mIoU" in said and "45.0 %. The sequence gets 5.0 points more" in said
    assert "(95 % interval over images +3.0 … +7.0; 1 seed each)" in said


@pytest.mark.parametrize(("low", "high", "words"), [(-0.01, 0.03, "1.0 points more"), (-0.05, 0.01, "2.0 points less")])
def test_a_difference_that_may_be_none_is_not_claimed(low: float, high: float, words: str) -> None:
    said = finding.sentence(comparison(low, high))
    assert words in said and "not separable" in said


def test_longer_trainings_are_said_with_their_budget_and_interval() -> None:
    said = finding.longer(comparison(-0.01, 0.03))
    assert "6,000 updates (2 seeds each)" in said and "scores 50.0 % mIoU and the dense one 45.0 %" in said
    assert said.count("+1.0 (−1.0 … +3.0; not separable)") == 2
    assert "separable" not in finding.longer(comparison(0.01, 0.03))


def test_the_table_has_the_rows_that_the_finding_is_about() -> None:
    lines = finding.table(comparison(0.03, 0.07)).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| recurrent",
        "| its own pixels, without the sequence",
        "| dense network",
        "| recurrent − own pixels, points",
        "| 95 % interval",
        "| recurrent − dense network, points",
        "| 95 % interval",
    ]
    assert lines[-2].count("| +5.0 ") == 3 and lines[-1].count("| +3.0\N{NO-BREAK SPACE}… +7.0 ") == 3


def test_a_lead_that_is_none_has_a_minus_sign() -> None:
    assert finding.table(comparison(-0.05, 0.01)).count("−2.0") == 6
