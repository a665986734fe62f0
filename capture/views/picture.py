"""A figure of its own: no pyplot, no global state, the same octets from the same data, and its facts as text with it.

Views import this when they draw: it loads matplotlib.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ft2font import FT2Font

WIDTH, DPI = 13.0, 110
"""Inches, and pixels to the inch: 1,430 pixels wide."""
FORMATS = ("png", "svg", "pdf")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "svg.fonttype": "path",
    "svg.hashsalt": "capture",
    "hatch.linewidth": 0.6,
    "text.usetex": False,
    "text.color": "black",
    "axes.facecolor": "white",
    "axes.edgecolor": "black",
    "axes.labelcolor": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "savefig.bbox": None,
    "savefig.facecolor": "auto",
    "savefig.dpi": "figure",
}
"""Whatever the user's own matplotlibrc says. DejaVu Sans comes with matplotlib, so pictures look alike everywhere."""

_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


class Picture(Figure):
    """A figure WIDTH inches wide that notebooks show by themselves."""

    facts: str = ""
    """What it shows, as text."""

    @classmethod
    def of_height(cls, inches: float) -> Picture:
        picture = cls(figsize=(WIDTH, inches), dpi=DPI, facecolor="white")
        FigureCanvasAgg(picture)
        return picture

    def save(self, path: str | Path) -> None:
        """Writes png, svg or pdf, by the path's suffix. Raises OSError; ValueError for another suffix."""
        kind = Path(path).suffix.lower().removeprefix(".")
        if kind not in FORMATS:
            raise ValueError(kind)
        with matplotlib.rc_context(STYLE):
            self.savefig(path, format=kind, metadata=_METADATA[kind])

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(image, format="png", metadata=_METADATA["png"])
        return image.getvalue()


def put(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    """Text as it is: never read as mathematics, and without characters that the font lacks."""
    axes.text(x, y, drawable(text), parse_math=False, **how)


def drawable(text: str) -> str:
    """What DejaVu Sans has no glyph for becomes a box, without a warning."""
    font = _font()
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in text)


@lru_cache(1)
def _font() -> FT2Font:
    return get_font(fontManager.findfont("DejaVu Sans"))
