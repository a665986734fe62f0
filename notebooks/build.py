"""Makes notebooks/en and notebooks/es from notebooks/src, so that the languages cannot drift apart.

    .venv/bin/python notebooks/build.py

A source is Python in cells (`# %%`, and `# %% [markdown]` with the text as comments, as editors know it); a cell that
says lang="en" or lang="es" is in that language's notebook alone, every other one is in both. What is written is always
the same: no outputs, and each cell's id follows from its content.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).resolve().parent
LANGUAGES = ("en", "es")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_CELL = re.compile(
    r'# %%(?P<markdown> \[markdown\])?(?: lang="(?P<language>\w+)")?\n(?P<content>.*?)(?=^# %%|\Z)', re.S | re.M
)


def build(source: str, language: str) -> str:
    """The notebook, as its file holds it."""
    v4: Any = nbformat.v4  # nbformat has no types
    cells: list[Any] = []
    for cell in _CELL.finditer(source):
        if cell["language"] in (None, language):
            text = cell["content"].strip("\n")
            if cell["markdown"]:
                text = re.sub(r"^# ?", "", text, flags=re.M)
            make = v4.new_markdown_cell if cell["markdown"] else v4.new_code_cell
            number = sum(text == other["source"] for other in cells)
            cells.append(make(text, id=hashlib.sha256(f"{number} {text}".encode()).hexdigest()[:12]))
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return str(v4.writes(v4.new_notebook(cells=cells, metadata=metadata))) + "\n"


def outdated() -> dict[Path, str]:
    """Notebooks that are not what their source makes of them, with what they should be."""
    wanted = {
        FOLDER / language / f"{source.stem}.ipynb": build(source.read_text(encoding="utf-8"), language)
        for source in sorted((FOLDER / "src").glob("*.py"))
        for language in LANGUAGES
    }
    return {
        file: text for file, text in wanted.items() if not file.exists() or file.read_text(encoding="utf-8") != text
    }


if __name__ == "__main__":
    for file, text in outdated().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
        print(file.relative_to(FOLDER))
