"""Panels: a title, queries with their legends, a unit, and words: what is shown, what is normal, what else to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as drawn
from grafana_foundation_sdk.models import dashboard as made

SOURCE = made.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source that is chosen on the dashboard."""

GREEN, YELLOW, RED = "green", "yellow", "red"

_Panel = TypeVar("_Panel", timeseries.Panel, stat.Panel, bargauge.Panel, statetimeline.Panel)


@dataclass(frozen=True, slots=True)
class Words:
    """What an operator reads at a panel: what it shows, what is normal, and what to do when it is not so."""

    shows: str
    normal: str
    otherwise: str

    def __str__(self) -> str:
        return f"{self.shows}\n\n**Normal:** {self.normal}\n\n**Otherwise:** {self.otherwise}"


@dataclass(frozen=True, slots=True)
class Steps:
    """From which value on a panel is yellow and red; where less is worse, below which."""

    yellow: float | None = None
    red: float | None = None
    less_is_worse: bool = False

    def build(self) -> dashboard.ThresholdsConfig:
        """Return the thresholds, the lowest first."""
        if self.less_is_worse:
            values = [(None, RED), (self.red, GREEN if self.yellow is None else YELLOW), (self.yellow, GREEN)]
        else:
            values = [(None, GREEN), (self.yellow, YELLOW), (self.red, RED)]
        first, *rest = values
        steps = [first, *(step for step in rest if step[0] is not None)]
        return (
            dashboard.ThresholdsConfig()
            .mode(made.ThresholdsMode.ABSOLUTE)
            .steps([made.Threshold(value, color) for value, color in steps])
        )


def query(expr: str, legend: str, *, instant: bool = False) -> prometheus.Dataquery:
    """Return a query; its legend may name labels as ``{{label}}``."""
    asked = prometheus.Dataquery().expr(expr).legend_format(legend).datasource(SOURCE)
    return asked.instant() if instant else asked.range()


def lines(
    title: str,
    unit: str,
    words: Words,
    queries: Mapping[str, str],
    *,
    steps: Steps | None = None,
    stacked: bool = False,
    most: float | None = None,
) -> made.Panel:
    """Return lines over time: ``queries`` by their legends. With ``steps``, their levels are drawn."""
    panel = (
        _begin(timeseries.Panel(), title, unit, words)
        .min(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(drawn.LegendDisplayMode.TABLE)
            .placement(drawn.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(drawn.TooltipDisplayMode.MULTI).sort(drawn.SortOrder.DESCENDING))
        .fill_opacity(30 if stacked else 8)
        .line_width(1)
        .show_points(drawn.VisibilityMode.NEVER)
    )
    if most is not None:
        panel = panel.max(most)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(drawn.StackingMode.NORMAL))
    if steps is not None:
        style = common.GraphThresholdsStyleConfig().mode(drawn.GraphTresholdsStyleMode.DASHED)
        panel = panel.thresholds(steps.build()).thresholds_style(style)
    return _finish(panel, [query(expr, legend) for legend, expr in queries.items()])


def number(title: str, unit: str, words: Words, expr: str, *, steps: Steps, decimals: int | None = None) -> made.Panel:
    """Return the newest value as a number, on its threshold's colour, with its course behind."""
    panel = (
        _begin(stat.Panel(), title, unit, words)
        .thresholds(steps.build())
        .color_mode(drawn.BigValueColorMode.BACKGROUND)
        .graph_mode(drawn.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("no data")
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    return _finish(panel, [query(expr, title)])


def bars(title: str, unit: str, words: Words, queries: Mapping[str, str]) -> made.Panel:
    """Return one bar a query: what came together in the time shown."""
    panel = (
        _begin(bargauge.Panel(), title, unit, words)
        .orientation(drawn.VizOrientation.HORIZONTAL)
        .display_mode(drawn.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .min(0)
        .decimals(0)
        .thresholds(Steps().build())
    )
    return _finish(panel, [query(expr, legend, instant=True) for legend, expr in queries.items()])


def states(title: str, words: Words, expr: str, legend: str) -> made.Panel:
    """Return a band a series over time, green where it is 1 and red where it is 0."""
    results = {
        "0": made.ValueMappingResult(text="down", color=RED, index=0),
        "1": made.ValueMappingResult(text="up", color=GREEN, index=1),
    }
    panel = (
        _begin(statetimeline.Panel(), title, "bool_on_off", words)
        .mappings([made.ValueMap(options=results)])
        .thresholds(Steps(red=1, less_is_worse=True).build())
        .show_value(drawn.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
    )
    return _finish(panel, [query(expr, legend)])


def _begin(panel: _Panel, title: str, unit: str, words: Words) -> _Panel:
    return panel.title(title).description(str(words)).unit(unit).datasource(SOURCE)


def _finish(panel: _Panel, queries: Sequence[prometheus.Dataquery]) -> made.Panel:
    for ref, one in zip("ABCDEFGHIJKL", queries, strict=False):
        panel = panel.with_target(one.ref_id(ref))
    if len(queries) > 12:
        raise ValueError("more queries than a panel can show")
    return panel.build()
