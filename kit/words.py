"""The kit's languages: which one is in force, and the catalogue it reads from.

Programs mark what people read with `_("…")` (or `ngettext`, or `N_` where the text is only named now and translated
when shown); English is what stands in the code, Spanish is in `kit/locale/es`. Placeholders are `{named}` and are
filled in after the look-up: `_("{user} joined #{room}").format(user=…, room=…)`.
"""

from __future__ import annotations

import argparse
import gettext as _gettext
import locale
import os
import sys
from pathlib import Path

LANGUAGES = ("en", "es")
DOMAIN = "wirelab"
LOCALE_FOLDER = Path(__file__).parent / "locale"

_translations: _gettext.NullTranslations = _gettext.NullTranslations()
_language = "en"


def choose_language(wanted: str | None = None) -> str:
    """Sets the language for the whole process: `wanted`, else MINICHAT_LANG, else the locale, else English."""
    global _translations, _language
    candidates = [wanted, os.environ.get("MINICHAT_LANG"), *_from_locale()]
    _language = next((c[:2].lower() for c in candidates if c and c[:2].lower() in LANGUAGES), "en")
    _translations = _gettext.translation(DOMAIN, LOCALE_FOLDER, [_language], fallback=True)
    return _language


def _from_locale() -> list[str | None]:
    variables = [os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG")]
    try:
        return [*variables, locale.getlocale()[0]]
    except ValueError:  # a locale that Python cannot parse
        return list(variables)


def language() -> str:
    return _language


def _(text: str) -> str:
    return _translations.gettext(text) if text else text


def ngettext(one: str, many: str, n: int) -> str:
    return _translations.ngettext(one, many, n)


def N_(text: str) -> str:
    """Marks a text for the catalogue without translating it yet."""
    return text


def add_language_option(parser: argparse.ArgumentParser) -> None:
    text = _("language of everything shown (en, es)")
    # Absent unless given: a subcommand's own --lang, not given, would else hide the one that stands before it.
    parser.add_argument("--lang", choices=LANGUAGES, default=argparse.SUPPRESS, help=text)


def language_from(arguments: list[str]) -> str:
    """Sets the language from a command line before argparse builds its help texts."""
    wanted = None
    for i, argument in enumerate(arguments):
        if argument == "--lang" and i + 1 < len(arguments):
            wanted = arguments[i + 1]
        elif argument.startswith("--lang="):
            wanted = argument.partition("=")[2]
    return choose_language(wanted)


def use_utf8() -> None:
    """Makes ✓ and ñ printable wherever output goes: a redirected Windows console is cp1252 otherwise. A stream that is
    closed from the start leads nowhere, so that nobody need ask, and no other file gets its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the program runs
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
