"""A report as one HTML page: style and figures are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from .contents import Contents
from .text import best_table, importance_rows, interaction_rows, overview

__all__ = ["html_page"]

STYLE = """\
:root { --ink: #1f2933; --soft: #6b7783; --line: #dde3e8; --ground: #ffffff; --mark: #1f6f8b; }
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: var(--ink);
       background: var(--ground); max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
.words { border-left: 4px solid var(--mark); padding: .25rem 0 .25rem 1rem; margin: 1rem 0; }
.words p { margin: .25rem 0; } .words .note { color: #9a5b00; }
.words .name { color: var(--soft); }
figure { margin: .5rem 0 0; } figure img { width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
"""


def html_page(contents: Contents) -> str:
    """The whole page. ImportError if matplotlib is not installed."""
    from .figures import figures

    title = f"Study {contents.study.study_name}"
    parts = [f"<h1>{escape(title)}</h1>"]
    for objective in contents.objectives:
        words = [f'<p class="name">{escape(objective.name)}, to {objective.direction}</p>'] if objective.name else []
        words += [f"<p>{escape(sentence)}</p>" for sentence in objective.summary.sentences]
        words += [f'<p class="note">{escape(warning)}</p>' for warning in objective.summary.warnings]
        parts.append(f'<div class="words">{"".join(words)}</div>')
    parts.append(_table((), overview(contents)))
    header, rows = best_table(contents)
    if rows:
        parts.append(f"<h2>{'Pareto front' if len(contents.objectives) > 1 else 'Best trials'}</h2>")
        parts.append(_table(header, rows))
    for name, caption, png in figures(contents):
        image = base64.b64encode(png).decode("ascii")
        parts.append(
            f'<h2>{escape(name)}</h2><figure><img alt="{escape(name)}" src="data:image/png;base64,{image}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    for objective in contents.objectives:
        if objective.tells:
            after = f" for {objective.name}" if objective.name else ""
            parts.append(f"<h2>What matters{escape(after)}, in figures</h2>")
            parts.append(
                _table(("parameter", "share of the variance", "with others", "good"), importance_rows(objective))
            )
            if interaction_rows(objective):
                parts.append(_table(("parameters", "share of the variance"), interaction_rows(objective)))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}{body}</table></div>'
