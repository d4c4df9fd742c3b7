"""A study for reading: `tuner.report(study)` as Markdown, as JSON, and as an HTML page with figures."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .contents import Contents, gather
from .page import html_page
from .text import markdown

if TYPE_CHECKING:
    from ..study import Study

__all__ = ["Report", "report"]


class Report:
    """Made by `report`. `str` gives Markdown."""

    def __init__(self, contents: Contents):
        self.contents = contents

    def __str__(self) -> str:
        return markdown(self.contents)

    def to_dict(self) -> dict:
        """For JSON; numbers may be NaN or infinite."""
        return self.contents.to_dict()

    def html(self) -> str:
        """A page that needs no other file. ImportError says so if matplotlib is not installed."""
        return html_page(self.contents)


def report(study: Study, html: str | os.PathLike[str] | None = None) -> Report:
    """What became of a study, what matters in it, and where its settings are good; also into the file `html` if given.

    With several objectives, what matters is told for each of them.
    """
    made = Report(gather(study))
    if html is not None:
        text = made.html()
        with open(html, "w", encoding="utf-8") as file:
            file.write(text)
    return made
