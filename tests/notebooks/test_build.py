from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from notebooks.build import FOLDER, LANGUAGES, build, outdated

SOURCES = sorted((FOLDER / "src").glob("*.py"))
NOTEBOOKS = [FOLDER / language / f"{source.stem}.ipynb" for source in SOURCES for language in LANGUAGES]

SOURCE = """\
# %% [markdown] lang="en"
# # Title
#
# Text,
# and more.

# %% [markdown] lang="es"
# # Título

# %%
x = "ñ"

print(x)  # %% inside a line is no cell

# %% lang="es"
y = 1

# %%
x

# %%
x
"""


def cells(notebook: str | Path) -> list[dict[str, Any]]:
    text = notebook.read_text(encoding="utf-8") if isinstance(notebook, Path) else notebook
    found = json.loads(text)["cells"]
    assert isinstance(found, list)
    return found


def test_each_language_gets_its_cells_and_those_of_both() -> None:
    english, spanish = ([(c["cell_type"], "".join(c["source"])) for c in cells(build(SOURCE, x))] for x in LANGUAGES)
    code = ("code", 'x = "ñ"\n\nprint(x)  # %% inside a line is no cell')
    assert english == [("markdown", "# Title\n\nText,\nand more."), code, ("code", "x"), ("code", "x")]
    assert spanish == [("markdown", "# Título"), code, ("code", "y = 1"), ("code", "x"), ("code", "x")]


def test_what_is_built_has_a_line_for_a_line_no_outputs_and_ids_that_follow_from_the_content() -> None:
    made = cells(build(SOURCE, "en"))
    assert made[1]["source"] == ['x = "ñ"\n', "\n", "print(x)  # %% inside a line is no cell"]
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in made if cell["cell_type"] == "code"
    )
    ids = [cell["id"] for cell in made]
    assert len({*ids}) == len(ids)
    assert [cell["id"] for cell in cells(build("# %%\nnew = 0\n\n" + SOURCE, "en"))][1:] == ids
    assert "ñ" in build(SOURCE, "en")


def test_the_notebooks_are_those_that_their_sources_make() -> None:
    assert not outdated(), "run: .venv/bin/python notebooks/build.py"
    assert sorted(FOLDER.glob("e[ns]/*.ipynb")) == sorted(NOTEBOOKS), "a notebook without a source"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_languages_differ_in_words_only(source: Path) -> None:
    english, spanish = (cells(FOLDER / language / f"{source.stem}.ipynb") for language in LANGUAGES)
    assert [cell["cell_type"] for cell in english] == [cell["cell_type"] for cell in spanish]
    for ours, theirs in zip(english, spanish, strict=True):
        same = "".join(ours["source"]).replace('speak("en")', 'speak("es")') == "".join(theirs["source"])
        assert same is (ours["cell_type"] == "code")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_cells_call_only_capture_and_lab(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= {"capture", "lab"}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] in {"capture", "lab"}
