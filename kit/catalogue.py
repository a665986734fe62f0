"""The catalogues behind kit.words, kept in step with the code. Needs Babel, which comes with the test tools.

    python -m kit.catalogue            writes what changed in the code to each .po, and compiles each .mo
    python -m kit.catalogue --check    changes nothing; says what is missing, unsure, unused or out of date

A text that is new in the code comes into the .po with an empty translation, and one whose English changed a little with
the old translation, marked fuzzy: translate it, or remove the mark, and run the first command again. What the code has
no longer goes.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import string
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from babel.messages import frontend
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from kit.words import DOMAIN, LANGUAGES, LOCALE_FOLDER

ROOT = Path(__file__).resolve().parent.parent
MAPPING = LOCALE_FOLDER / "babel.cfg"
TRANSLATED = tuple(language for language in LANGUAGES if language != "en")
HEADER = "# What the wire lab says. Kept in step with the code by: python -m kit.catalogue"
DATE = datetime(2026, 1, 1, tzinfo=UTC)
"""In every header: a true date would change files in which nothing else did."""

MARKS = ("_", "N_", "ngettext")
_PERCENT = re.compile(r"%(?:\(\w+\))?[a-zA-Z]")


def po_file(language: str) -> Path:
    return LOCALE_FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def _mapping() -> tuple[list[tuple[str, str]], dict[str, dict[str, Any]]]:
    """Which files are looked through, and how."""
    parse: Any = frontend.parse_mapping_cfg  # untyped
    with MAPPING.open(encoding="utf-8") as file:
        methods, options = parse(file)
    return methods, options


def extract() -> Catalog:
    """Every text that the code marks, with the files that it stands in."""
    methods, options = _mapping()
    catalog = Catalog(project="wire lab", header_comment=HEADER, creation_date=DATE, revision_date=DATE)
    found = extract_from_dir(ROOT, methods, options, DEFAULT_KEYWORDS, strip_comment_tags=True)
    for name, _line, ids, _comments, context in sorted(found, key=lambda each: each[:2]):
        catalog.add(ids, locations=[(name.replace("\\", "/"), 0)], context=context)
    return catalog


def unseen(template: Catalog) -> Iterator[str]:
    """Marked texts that extraction overlooks: before Python 3.12 those inside an f-string."""
    seen = {"", *(_forms(message.id)[0] for message in template)}
    for name in sorted({path for path, _method in _mapping()[0]}):
        for file in sorted(ROOT.glob(name)):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
                    text = node.args[0]
                    if isinstance(text, ast.Constant) and text.value not in seen:
                        yield f"{file.relative_to(ROOT).as_posix()}: take it out of the f-string: {text.value!r}"


def read(language: str) -> Catalog:
    """The translations as they are; empty where there are none yet."""
    file = po_file(language)
    if not file.exists():
        return Catalog(language)
    with file.open("rb") as stream:
        return read_po(stream, locale=language, domain=DOMAIN)


def updated(language: str, template: Catalog) -> Catalog:
    """The translations of just those texts that the template has."""
    catalog = read(language)
    catalog.update(template, update_creation_date=False)
    catalog.obsolete.clear()
    catalog.header_comment, catalog.project, catalog.version = HEADER, template.project, ""
    catalog.last_translator = catalog.language_team = catalog.msgid_bugs_address = ""
    catalog.creation_date = catalog.revision_date = DATE
    catalog.fuzzy = False
    for message in catalog:
        message.locations = list(dict.fromkeys(message.locations))
    return catalog


def po_octets(catalog: Catalog) -> bytes:
    stream = io.BytesIO()
    write_po(stream, catalog, width=120, include_lineno=False)
    return stream.getvalue()


def mo_octets(catalog: Catalog) -> bytes:
    stream = io.BytesIO()
    write_mo(stream, catalog)
    return stream.getvalue()


def update() -> None:
    template = extract()
    for language in TRANSLATED:
        catalog = updated(language, template)
        file = po_file(language)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(po_octets(catalog))
        file.with_suffix(".mo").write_bytes(mo_octets(catalog))


def problems(language: str, template: Catalog) -> Iterator[str]:
    """What keeps the catalogue from being complete, right and current, a line each. Begins with the folder that is
    concerned, where one is."""
    catalog = read(language)
    for wanted in template:
        if not wanted.id:
            continue
        where = wanted.locations[0][0]
        have = catalog.get(wanted.id, wanted.context)
        if have is None:
            yield f"{where}: not in {po_file(language).name}: {wanted.id!r}"
        elif not all(_forms(have.string)):
            yield f"{where}: not translated: {wanted.id!r}"
        elif have.fuzzy:
            yield f"{where}: the translation is unsure (fuzzy): {wanted.id!r}"
        else:
            yield from (f"{where}: {problem}" for problem in _wrong_placeholders(have))
    for have in catalog:
        if have.id and template.get(have.id, have.context) is None:
            yield f"the code has no longer: {have.id!r}"
    compiled = po_file(language).with_suffix(".mo")
    if not compiled.exists() or compiled.read_bytes() != mo_octets(catalog):
        yield f"{compiled.name} is not compiled from {po_file(language).name} as it is"
    elif po_file(language).read_bytes() != po_octets(updated(language, template)):
        yield f"{po_file(language).name} is not as this script writes it"


def _forms(texts: str | Sequence[str] | None) -> tuple[str, ...]:
    """Singular and plurals; one form for a text that has no plural."""
    return (texts or "",) if isinstance(texts, str | None) else tuple(texts)


def _wrong_placeholders(message: Message) -> Iterator[str]:
    """Translations that ask for other values than the English text, or that cannot be filled in."""
    wanted = _placeholders(_forms(message.id)[-1])
    for at, form in enumerate(_forms(message.string)):
        try:
            have = _placeholders(form)
        except ValueError as error:
            yield f"{error} in {form!r}"
            continue
        singular = at == 0 and len(_forms(message.string)) > 1  # "one message" may do without its {count}
        if have - wanted or (wanted - have and not singular):
            yield f"placeholders {sorted(have)}, and the English text has {sorted(wanted)}: {form!r}"


def _placeholders(text: str) -> set[str]:
    """`{named}`, with its format, and argparse's `%s` and `%(named)s`."""
    if _PERCENT.search(text) and "{" not in text:
        return set(_PERCENT.findall(text))
    fields = string.Formatter().parse(text)
    return {f"{{{name}!{conversion}:{form}}}" for _literal, name, form, conversion in fields if name is not None}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m kit.catalogue", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    if not parser.parse_args(arguments).check:
        update()
    template = extract()
    found = list(unseen(template))
    found += [f"{language}: {problem}" for language in TRANSLATED for problem in problems(language, template)]
    print("\n".join(found) or f"{len(template)} texts, all translated")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
