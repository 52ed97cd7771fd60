"""The page of a report: one HTML file without scripts, which loads nothing.

Everything that comes from a run is escaped: a run's folder may have been made by anybody.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pgtoolkit.formatting import FLAG
from pgtoolkit.scripts.cli.formatting import format_number, join_names
from pgtoolkit.scripts.comparison.scalars import CPU_SECONDS, EVALUATION, curve_of
from pgtoolkit.scripts.reporting.charts import Section, Styled, sections, styled
from pgtoolkit.scripts.reporting.runs import Experiment, Run, different_settings, is_set, whole
from pgtoolkit.scripts.reporting.style import STYLE
from pgtoolkit.scripts.reporting.svg import Chart, chart_svg, escaped
from pgtoolkit.training.diagnosis import NOTHING

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""


def page(experiments: Sequence[Experiment]) -> str:
    """The report as HTML."""
    known = styled(experiments)
    title = title_of(experiments)
    parts = [
        HEAD.format(title=escaped(title), style=STYLE),
        f"<h1>{escaped(title)}</h1>",
        overview(known),
        diagnosis(known),
        *(environment(env, known) for env in dict.fromkeys(e.env for e in experiments)),
        settings_tables(known),
        versions_table(known),
        "</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def title_of(experiments: Sequence[Experiment]) -> str:
    """What the report is about."""
    runs = sum(len(each.runs) for each in experiments)
    names = join_names(dict.fromkeys(e.label.partition(":")[0] for e in experiments))
    envs = join_names(dict.fromkeys(e.env for e in experiments))
    return f"{names} on {envs}" + (f": {runs} runs" if runs > 1 else "")


def legend(experiments: Sequence[Styled]) -> str:
    """Names and colours; nothing where there is one experiment."""
    if len(experiments) == 1:
        return ""
    return _legend((each.style, each.name) for each in experiments)


def _legend(rows: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<li>{named(style, name)}</li>" for style, name in rows)
    return f'<ul class="legend">{items}</ul>'


def named(style: str, name: str) -> str:
    """A name behind its colour; it may be broken behind a comma or a colon."""
    breakable = re.sub("([,:])", r"\1<wbr>", escaped(name))
    return f'<span class="name"><i class="swatch {style}"></i><span>{breakable}</span></span>'


def overview(experiments: Sequence[Styled]) -> str:
    """A row for each run: steps, returns, time, and what the diagnosis found."""
    rows = [row_of(each, run) for each in experiments for run in each.experiment.runs]
    numbers = "".join(f'<th class="number">{head}</th>' for head in NUMBERS)
    head = f"<tr><th>run</th>{numbers}<th>diagnosis</th></tr>"
    return f'<div class="scroll"><table class="runs">{head}{"".join(rows)}</table></div>'


NUMBERS = ("seed", "steps", "evaluation at the end", "best evaluation", "CPU&nbsp;s")


def row_of(each: Styled, run: Run) -> str:
    """The row of a run. In a narrow window each cell is a line with its label."""
    curve, seconds = (curve_of(run.scalars, tag) for tag in (EVALUATION, CPU_SECONDS))
    numbers = [
        str(run.config.get("seed", "-")),
        f"{steps_of(run):,}",
        "-" if curve is None else format_number(float(curve.y[-1]), 4),
        "-" if curve is None else format_number(float(curve.y.max()), 4),
        "-" if seconds is None else format_number(float(seconds.y[-1])),
    ]
    cells = "".join(
        f'<td class="number" data-label="{label}">{escaped(number)}</td>'
        for label, number in zip(NUMBERS, numbers, strict=True)
    )
    state = f'<td data-label="diagnosis">{state_of(run)}</td>'
    return f"<tr><td>{named(each.style, each.name)}</td>{cells}{state}</tr>"


def steps_of(run: Run) -> int:
    """Environment steps so far."""
    told = whole((run.summary or {}).get("steps"))
    return told or max((steps[-1] for steps, _ in run.scalars.values() if steps), default=0)


LITTLE_LEARNED = ("did not improve", "rose little")
"""What became of the return where the run has no finding and yet has not learned."""


def state_of(run: Run) -> str:
    """The diagnosis of a run in a few words."""
    if run.summary is None:
        return '<span class="soft">not ended</span>'
    count = len(run.findings)
    if not count:
        told = (words for words in LITTLE_LEARNED if words in run.without_findings)
        return next(told, NOTHING)
    return f'<span class="alarm">{count} finding{"s" if count > 1 else ""}</span>'


NOT_ENDED = "No run has ended yet."


def diagnosis(experiments: Sequence[Styled]) -> str:
    """The quality of each run's gradient and its findings in full, for runs that have ended."""
    parts = [
        verdict(each, run)
        for each in experiments
        for run in each.experiment.runs
        if run.summary is not None
    ]
    text = "Whether each run's gradient is sound, what its return did, what is wrong, what to do."
    return "\n".join(("<h2>Diagnosis</h2>", f"<p>{text if parts else NOT_ENDED}</p>", *parts))


def verdict(each: Styled, run: Run) -> str:
    """What the diagnosis says of a run."""
    seed = f"{each.name}, seed {run.config.get('seed', '-')}"
    gradient = f"<li>Gradient: {with_flags(run.gradient)}.</li>" if run.gradient else ""
    rows = "".join(f"<li>{with_flags(sentence)}</li>" for sentence in run.findings)
    text = run.without_findings
    nothing = f"<li>{with_flags(text[:1].upper() + text[1:])}.</li>"
    items = gradient + (rows or nothing)
    return f'<h3>{named(each.style, seed)}</h3><ul class="findings">{items}</ul>'


def environment(env: str, experiments: Sequence[Styled]) -> str:
    """The charts of the experiments on one environment."""
    here = [each for each in experiments if each.experiment.env == env]
    several = len(here) < len(experiments)
    parts = [f"<h2>{escaped(env)}</h2>"] if several else []
    level = "h3" if several else "h2"
    seeds = max(len(each.experiment.runs) for each in here)
    steps = max(steps_of(run) for each in here for run in each.experiment.runs)
    for section in sections(here):
        parts.append(section_html(section, level, steps, here))
    if seeds > 1:
        parts.append(
            '<p class="soft">Lines of several seeds are interquartile means over the seeds, with a '
            "95 % bootstrap interval as a band.</p>"
        )
    return "\n".join(part for part in parts if part)


def section_html(section: Section, level: str, steps: int, experiments: Sequence[Styled]) -> str:
    """A heading, the experiments' colours, and the charts; nothing where there are no charts."""
    if not section.charts:
        return ""
    alone = len(experiments) == 1
    figures = "\n".join(figure(chart, steps, show_lines=alone) for chart in section.charts)
    text = f"<p>{escaped(section.text)}</p>" if section.text else ""
    return (
        f"<{level}>{escaped(section.title)}</{level}>{text}{legend(experiments)}\n"
        f'<div class="grid-of-charts">\n{figures}\n</div>'
    )


def figure(chart: Chart, steps: int, *, show_lines: bool) -> str:
    """A chart with its title; with the names of its lines where these are no experiments."""
    note = f"<span>{escaped(chart.note)}</span>" if chart.note else ""
    own = show_lines and len(chart.lines) > 1
    lines = _legend((line.style, line.label) for line in chart.lines) if own else ""
    caption = f"<figcaption>{escaped(chart.title)}{note}</figcaption>"
    return f"<figure>{caption}{chart_svg(chart, steps)}{lines}</figure>"


def settings_tables(experiments: Sequence[Styled]) -> str:
    """The settings that differ from the defaults, then all others."""
    found = [each.experiment for each in experiments]
    first = different_settings(found)
    rest = sorted(set().union(*(e.settings for e in found)) - set(first))
    parts = [
        "<h2>Settings</h2>",
        "<p>Settings without a default, or in which a run differs from it (marked).</p>",
        settings_table(first, experiments, with_defaults=True),
    ]
    if rest:
        table = settings_table(rest, experiments, with_defaults=False)
        title = f"{len(rest)} settings that are their agent's defaults"
        parts.append(f"<details><summary>{title}</summary>{table}</details>")
    return "\n".join(parts)


def settings_table(
    names: Sequence[str], experiments: Sequence[Styled], *, with_defaults: bool
) -> str:
    """A row for each setting, a column for each experiment, and one for the defaults."""
    heads = [f"<th>{named(each.style, each.name)}</th>" for each in experiments]
    heads += ['<th class="soft">default</th>'] if with_defaults else []
    rows = []
    for name in names:
        cells = [settings_cell(name, each.experiment) for each in experiments]
        if with_defaults:
            cells.append(f'<td class="soft">{escaped(default_text(name, experiments))}</td>')
        rows.append(f"<tr><td><code>{escaped(name)}</code></td>{''.join(cells)}</tr>")
    head = f"<tr><th>setting</th>{''.join(heads)}</tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def default_text(name: str, experiments: Sequence[Styled]) -> str:
    """The default of a setting; of those agents that differ from it, where agents have several."""
    found = [each.experiment for each in experiments if name in each.experiment.defaults]
    differing = [e for e in found if is_set(name, e)]
    texts = dict.fromkeys(value_text(e.defaults[name]) for e in differing or found)
    return join_names(texts) or "-"


def settings_cell(name: str, experiment: Experiment) -> str:
    """The value of a setting; marked where the default was not given."""
    if name not in experiment.settings:
        return '<td class="soft">-</td>'
    mark = ' class="unusual"' if is_set(name, experiment) else ""
    text, given = value_text(experiment.settings[name]), experiment.given[name]
    chosen = f" ({given})" if given != experiment.settings[name] and given == "auto" else ""
    return f"<td{mark}>{escaped(text + chosen)}</td>"


def value_text(value: Any) -> str:
    """The value of a setting in words."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def versions_table(experiments: Sequence[Styled]) -> str:
    """The versions of the packages, and which runs have others; the folders of the runs."""
    runs = [run for each in experiments for run in each.experiment.runs]
    found = [dict(v) if isinstance(v := run.config.get("versions"), dict) else {} for run in runs]
    names = list(dict.fromkeys(str(name) for each in found for name in each))
    rows = []
    for name in names:
        texts = dict.fromkeys(str(each.get(name, "-")) for each in found)
        mark = ' class="unusual"' if len(texts) > 1 else ""
        rows.append(f"<tr><td>{escaped(name)}</td><td{mark}>{escaped(join_names(texts))}</td></tr>")
    folders = "".join(f"<li><code>{escaped(str(run.path))}</code></li>" for run in runs)
    table = f'<div class="scroll"><table>{"".join(rows)}</table></div>' if rows else ""
    return f'<h2>Versions and folders</h2>{table}<ul class="folders">{folders}</ul>'


def with_flags(text: str) -> str:
    """The text for HTML, with flags such as ``--num-envs`` as code, which is not broken."""
    return FLAG.sub(r"<code>\g<0></code>", escaped(text))
