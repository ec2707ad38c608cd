"""The figure of the measures against a setting that the arms change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heptapod.tools.ablation.plots import _lines, plotted_value, setting_picture
from heptapod.tools.ablation.study import Study
from heptapod.utils.config import from_dict

ARMS: list[dict[str, Any]] = [
    {"kind": "next_token"},
    {"kind": "cross", "name": "few", "changes": {"objective": {"far_cells": 0.125}}},
    {"kind": "cross", "name": "many", "changes": {"objective": {"far_cells": 1}}},
    {
        "kind": "cross",
        "name": "near",
        "changes": {"objective": {"far_cells": 1, "near_share": 0.5}, "train": {"learning_rate": 0.01}},
    },
    {"kind": "cross"},
]


def study(**changes: Any) -> Study:
    values = {"codes": "cache", "heads": ARMS, "plot_against": "objective.far_cells", **changes}
    return from_dict(Study, values, "study")


def test_arms_that_differ_in_other_settings_have_lines_of_their_own() -> None:
    given = study()
    assert [plotted_value(given, arm) for arm in given.arms()] == [
        (None, "next_token all/1"),
        (0.125, "cross all/1"),
        (1.0, "cross all/1"),
        (1.0, "cross all/1, near_share 0.5, learning_rate 0.01"),
        (0.25, "cross all/1"),  # the default
    ]


def test_arms_without_the_setting_and_of_other_depths_are_lines_of_their_own() -> None:
    arms = [
        {"kind": "cross"},
        {"kind": "cross", "name": "four", "changes": {"objective": {"far_prefixes": 4}}},
        {"kind": "cross", "name": "eight", "depth": 4, "changes": {"objective": {"far_prefixes": 8}}},
    ]
    given = study(heads=arms, plot_against="objective.far_prefixes")
    found = [plotted_value(given, arm) for arm in given.arms()]
    assert found == [(None, "cross all/1"), (4.0, "cross all/1"), (8.0, "cross 4 deep all/1")]
    rows = [
        {"arm": arm.name, "budget": "b", "seed": 0, "nll": {"nats_per_token": float(n), "standard_error": 1.0}}
        for n, arm in enumerate(given.arms())
    ]
    lines = _lines(given, given.arms(), rows, "nll")
    assert list(lines.values()) == [[(0.0, 0.0, None)], [(4.0, 1.0, None)], [(8.0, 2.0, None)]]
    none = study(heads=[*ARMS[:3], {"kind": "cross", "name": "none", "changes": {"objective": {"far_cells": 0}}}])
    assert plotted_value(none, none.arms()[3]) == (0.0, "cross all/1")


def test_the_figure_has_a_row_per_order_and_a_panel_per_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    given = study(token_orders=["raster", "random"])
    drawn: list[Any] = []
    monkeypatch.setattr("heptapod.tools.ablation.plots.save_figure", lambda figure, path: drawn.append(figure) or path)
    rows: list[dict[str, Any]] = []
    for n, arm in enumerate(given.arms()):
        for seed in (0, 1):
            row = {"arm": arm.name, "budget": "time-1000", "seed": seed}
            row["nll"] = {"nats_per_token": 4.0 + n + seed / 8, "standard_error": 1}
            if arm.head.kind != "next_token":
                row["far"] = {"nats_per_cell": 5.0 + n, "standard_error": 1}
            rows.append(row)
    assert setting_picture(given, rows, tmp_path) == tmp_path / "setting.png"
    raster_nll, raster_far, *_ = drawn[0].axes
    assert [axis.get_ylabel() for axis in drawn[0].axes] == ["NLL (nats per token)", "far cells (nats)"] * 2
    lines = {line.get_label(): line.get_xydata().tolist() for line in raster_nll.get_lines()}
    assert [y for _, y in lines["next_token all/1"]] == [4.0625, 4.0625], "the mean of both seeds, at every x"
    curve = next(bars for bars in raster_nll.containers if bars.get_label() == "cross all/1")
    assert curve[0].get_xydata().tolist() == [[0.125, 5.0625], [0.25, 8.0625], [1.0, 6.0625]], "sorted by the setting"
    assert "next_token all/1" not in {line.get_label() for line in raster_far.get_lines()}, "it has no far cells"


def test_without_the_setting_there_is_no_figure(tmp_path: Path) -> None:
    rows = [{"arm": "few-all-1-raster", "budget": "time-1000"}]
    assert setting_picture(study(plot_against=None), rows, tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plot_against": "train.steps"}, "plot_against: train.steps given, must be one of objective.far_cells"),
        ({"heads": ARMS[:2]}, "the arms do not change it to two or more numbers"),
    ],
)
def test_a_setting_that_makes_no_figure_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(**changes)
