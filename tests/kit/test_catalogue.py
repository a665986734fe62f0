"""The catalogues are complete, right, and current; and the tool that says so can tell when they are not."""

from __future__ import annotations

import gettext
from collections.abc import Callable
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog

from kit import catalogue
from kit.catalogue import MAPPING, ROOT, TRANSLATED, mo_octets, po_file, po_octets, problems, unseen

PACKAGES = sorted(folder.parent.name for folder in ROOT.glob("*/__init__.py") if folder.parent.name not in ("proto",))


@pytest.fixture(scope="module")
def template() -> Catalog:
    return catalogue.extract()


@pytest.fixture(scope="module")
def found(template: Catalog) -> list[str]:
    return [*unseen(template), *(problem for language in TRANSLATED for problem in problems(language, template))]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_text_of_a_package_is_translated_and_takes_the_same_values(found: list[str], package: str) -> None:
    problems = [problem for problem in found if problem.startswith(f"{package}/")]
    assert not problems, "\n".join(problems)


def test_the_files_are_what_the_tool_writes_now(found: list[str]) -> None:
    problems = [problem for problem in found if not problem.startswith(tuple(f"{package}/" for package in PACKAGES))]
    assert not problems, "\n".join(problems)


def test_every_package_is_looked_through(template: Catalog) -> None:
    """A mapping that names nothing extracts nothing, without an error."""
    mapped = {
        line.partition("/")[0].removeprefix("[python: ") for line in MAPPING.read_text().splitlines() if "/" in line
    }
    assert set(PACKAGES) <= mapped
    extracted = {name.partition("/")[0] for message in template for name, _line in message.locations}
    assert {"capture", "client", "kit", "lab", "server"} <= extracted


def test_python_finds_the_compiled_catalogue() -> None:
    spanish = gettext.translation("wirelab", po_file("es").parent.parent.parent, ["es"])
    assert spanish.gettext("✓ {user} joined #{room}") == "✓ {user} se unió a #{room}"
    assert spanish.ngettext("installing {count} package", "installing {count} packages", 2) == (
        "instalando {count} paquetes"
    )


class TestTheToolItself:
    """On a small catalogue of its own."""

    @pytest.fixture
    def check(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
        monkeypatch.setattr(catalogue, "LOCALE_FOLDER", tmp_path)
        po_file("es").parent.mkdir(parents=True)

        def check(wanted: dict[str | tuple[str, str], str | tuple[str, str]], edit: str = "") -> list[str]:
            template = Catalog()
            for text in wanted:
                template.add(text, locations=[("server/x.py", 0)])
            catalog = catalogue.updated("es", template)
            for text, translation in wanted.items():
                message = catalog.get(text)
                assert message is not None
                message.string = translation
                message.flags |= {"fuzzy"} if edit == "fuzzy" else set()
            po_file("es").write_bytes(po_octets(catalog))
            po_file("es").with_suffix(".mo").write_bytes(b"" if edit == "stale" else mo_octets(catalog))
            if edit == "unknown":
                template.add("new text", locations=[("server/x.py", 0)])
            if edit == "obsolete":
                template.delete(next(iter(wanted)))
            return list(problems("es", template))

        return check

    def test_what_is_right_is_no_problem(self, check: Callable[..., list[str]]) -> None:
        texts = {
            "{user} left {room}": "de {room} salió {user}",
            ("one {what}", "{count} {what}"): ("un {what}", "{count} {what}"),
            "argument %s": "argumento %s",
            "{{literal}} 100 %": "{{literal}} 100 %",
            "{seconds:g}": "{seconds:g}",
        }
        assert check(texts) == []

    @pytest.mark.parametrize(
        ("text", "translation", "problem"),
        [
            ("Hello", "", "not translated: 'Hello'"),
            (("one", "{count}"), ("uno", ""), "not translated"),
            ("{user} left", "{usuario} salió", "placeholders ['{usuario!None:}'], and the English text has"),
            ("{user} left", "salió", "placeholders []"),
            ("{seconds:g}", "{seconds}", "placeholders ['{seconds!None:}']"),
            ("{user} left", "{user salió", "in '{user salió'"),
            ("argument %s", "argumento", "placeholders []"),
            (("one", "{count}"), ("uno {n}", "{count}"), "placeholders ['{n!None:}']"),
            (("one {what}", "{count} {what}"), ("uno {what}", "{count}"), "placeholders ['{count!None:}']"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_place(
        self, check: Callable[..., list[str]], text: str, translation: str, problem: str
    ) -> None:
        (found,) = check({text: translation})
        assert found.startswith("server/x.py: ")
        assert problem in found

    @pytest.mark.parametrize(
        ("edit", "problem"),
        [
            ("fuzzy", "server/x.py: the translation is unsure (fuzzy): 'Hello'"),
            ("stale", "wirelab.mo is not compiled from wirelab.po as it is"),
            ("unknown", "server/x.py: not in wirelab.po: 'new text'"),
            ("obsolete", "the code has no longer: 'Hello'"),
        ],
    )
    def test_what_is_out_of_date_is_named(self, check: Callable[..., list[str]], edit: str, problem: str) -> None:
        assert problem in check({"Hello": "Hola"}, edit)

    def test_a_marked_text_inside_an_f_string_is_not_overlooked(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "server").mkdir()
        (tmp_path / "server" / "x.py").write_text("print(f\"{_('hidden')}\", _('seen'), _(variable), _(''))")
        monkeypatch.setattr(catalogue, "ROOT", tmp_path)
        template = Catalog()
        template.add("seen")
        assert list(unseen(template)) == ["server/x.py: take it out of the f-string: 'hidden'"]
