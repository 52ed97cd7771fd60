"""The style sheet of a report: light and dark by the reader's setting, wide and narrow windows."""

from pgtoolkit.estimators.catalogue import CATALOGUE

LIGHT = ("#0072b2", "#c24e00", "#00805c", "#a8437c", "#6b7280", "#8a6d00", "#4338ca")
DARK = ("#5fb4ee", "#ff9b57", "#35cf9f", "#f08fc4", "#a9b1bd", "#e2c044", "#a5a0ff")
"""Colours of experiments: after Okabe and Ito, darkened or lightened to be read on the ground."""


def estimator_rules() -> str:
    """A class for each estimator, in the colour that it has in every picture of this package."""
    return "\n".join(
        f".e-{name} {{ --it: color-mix(in oklab, {row.colour} var(--keep), white); }}"
        for name, row in CATALOGUE.items()
    )


def _numbered(colours: tuple[str, ...]) -> str:
    return " ".join(f"--c{index}: {colour};" for index, colour in enumerate(colours))


STYLE = f"""
:root {{
  color-scheme: light dark;
  --ground: #ffffff; --card: #f7f7f5; --ink: #1d1f23; --soft: #5b616b; --rule: #d9dade;
  --alarm: #a32a00; --marked: #fff4d6; --keep: 100%;
  {_numbered(LIGHT)}
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ground: #14161a; --card: #1d2026; --ink: #e8e9ec; --soft: #a4abb6; --rule: #383d46;
    --alarm: #ff9d7a; --marked: #3b3314; --keep: 62%;
    {_numbered(DARK)}
  }}
}}
{" ".join(f".c{i} {{ --it: var(--c{i}); }}" for i in range(len(LIGHT)))}
.ink {{ --it: var(--ink); }}
{estimator_rules()}
* {{ box-sizing: border-box; }}
body {{
  margin: 0 auto; padding: 1.5rem clamp(0.8rem, 3vw, 2.5rem) 3rem; max-width: 1500px;
  background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
}}
h1 {{ font-size: 1.6rem; margin: 0 0 0.3rem; line-height: 1.25; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 0.3rem; }}
h3 {{ font-size: 1rem; margin: 1.2rem 0 0.3rem; }}
p {{ margin: 0.2rem 0 0.8rem; max-width: 75ch; }}
.soft, figcaption span {{ color: var(--soft); }}
.grid-of-charts {{
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr));
}}
figure {{
  margin: 0; padding: 0.7rem 0.7rem 0.4rem; background: var(--card); border-radius: 8px;
  display: flex; flex-direction: column;
}}
figcaption {{ font-weight: 600; line-height: 1.35; margin-bottom: auto; }}
figcaption span {{ display: block; font-weight: 400; font-size: 0.88em; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font-size: 12px; fill: var(--soft); }}
svg text.mark {{
  fill: var(--ink); font-style: italic; paint-order: stroke; stroke: var(--card); stroke-width: 3px;
}}
.grid {{ stroke: var(--rule); stroke-width: 1; }}
.axis {{ stroke: var(--soft); stroke-width: 1; }}
line.mark {{ stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 2 3; }}
.line {{ fill: none; stroke: var(--it); stroke-width: 2; stroke-linejoin: round; }}
.line.dashed {{ stroke-dasharray: 7 4; }}
.band {{ fill: var(--it); opacity: 0.18; }}
.bar {{ stroke: var(--it); stroke-width: 4; opacity: 0.35; }}
.dot {{ fill: var(--it); }}
.legend {{
  display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; margin: 0.3rem 0 0.8rem; padding: 0;
}}
.legend li {{ list-style: none; overflow-wrap: anywhere; }}
figure .legend {{ font-size: 0.88em; margin: 0.2rem 0 0; }}
.name {{ display: flex; align-items: baseline; gap: 0.5em; overflow-wrap: anywhere; }}
th .name {{ overflow-wrap: break-word; min-width: 8em; max-width: 28ch; }}
.swatch {{
  flex: none; display: inline-block; width: 1.6em; border-top: 3px solid var(--it);
  transform: translateY(-0.3em);
}}
.swatch.dashed {{ border-top-style: dashed; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.93rem; }}
th, td {{
  text-align: left; padding: 0.3rem 0.8rem 0.3rem 0.3rem; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: break-word; max-width: 40ch;
}}
th {{ font-weight: 600; }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
td.number {{ white-space: nowrap; }}
.runs td:first-child {{ min-width: 11em; }}
.runs td:last-child {{ white-space: nowrap; }}
td.unusual {{ background: var(--marked); }}
.findings {{ padding-left: 1.2rem; margin: 0.2rem 0 0.8rem; max-width: 85ch; }}
.findings li {{ margin-bottom: 0.3rem; overflow-wrap: anywhere; }}
.alarm {{ color: var(--alarm); font-weight: 600; }}
summary {{ cursor: pointer; margin: 0.8rem 0; }}
.findings code {{ white-space: nowrap; }}
.folders {{ padding-left: 1.2rem; overflow-wrap: anywhere; }}
code {{ font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.92em; }}
@media (max-width: 520px) {{
  body {{ font-size: 14px; }}
  svg text {{ font-size: 14px; }}
  figure {{ padding: 0.5rem 0.3rem 0.3rem; }}
  figcaption {{ padding: 0 0.3rem; }}
  th, td {{ padding-right: 0.6rem; }}
  .runs tr:first-child {{ display: none; }}
  .runs, .runs tbody, .runs tr, .runs td {{ display: block; max-width: none; }}
  .runs tr {{ border-bottom: 1px solid var(--rule); padding: 0.4rem 0; }}
  .runs td {{ border: 0; padding: 0.1rem 0; display: flex; justify-content: space-between; }}
  .runs td:first-child {{ font-weight: 600; }}
  .runs td[data-label]::before {{ content: attr(data-label); color: var(--soft); }}
}}
@media print {{ figure {{ break-inside: avoid; }} }}
"""
