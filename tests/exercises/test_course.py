from __future__ import annotations

import ast
from pathlib import Path

import pytest

from exercises.checker import Student, check
from exercises.course import FOLDER, Exercise, Words, exercises, in_language, said
from kit.words import LANGUAGES, choose_language

EVERY = pytest.mark.parametrize("exercise", exercises().values(), ids=list(exercises()))
BOTH = pytest.mark.parametrize("language", LANGUAGES)


@EVERY
@BOTH
def test_an_exercise_fails_unsolved_and_its_solution_passes(exercise: Exercise, language: str, tmp_path: Path) -> None:
    student = Student("Juan")
    file = tmp_path / f"{exercise.id}.py"
    file.write_text(exercise.file(language), encoding="utf-8")
    unsolved = check(exercise, file, student)
    assert not unsolved.passed
    assert unsolved.failure is not None
    assert unsolved.failure.came.kind == "answer", "the file as it comes runs"
    file.write_text(exercise.solution(language), encoding="utf-8")
    assert check(exercise, file, student).checks == dict.fromkeys(exercise.checks, True)


@EVERY
def test_every_word_is_there_in_both_languages(exercise: Exercise) -> None:
    words: list[Words] = [exercise.name, *exercise.hints, *exercise.checks.values(), *exercise.parts.values()]
    for mistake in exercise.mistakes.values():
        words += [mistake.note, mistake.likely, mistake.next]
    for pair in words:
        assert set(pair) == set(LANGUAGES)
        assert all(text == text.strip() != "" for text in pair.values()), pair
    assert len(exercise.hints) == 3


@EVERY
def test_the_manifest_names_what_the_checks_have(exercise: Exercise) -> None:
    rules = exercise.rules()
    assert [one.name for one in rules.checks(Student("Juan"))] == list(exercise.checks)
    assert list(dict.fromkeys(mistake.name for mistake in rules.MISTAKES)) == list(exercise.mistakes)
    assert len(exercise.mistakes) >= 3
    assert list(rules.PARTS) == list(exercise.parts)


@EVERY
def test_both_languages_have_the_same_code_and_a_task_in_it(exercise: Exercise) -> None:
    for make in (exercise.file, exercise.solution):
        made = [make(language) for language in LANGUAGES]
        assert len({ast.dump(ast.parse(text)) for text in made}) == 1
        assert len(set(made)) == len(LANGUAGES), "comments in each language"
        assert len({text.count("#") for text in made}) <= len(LANGUAGES)
        assert not any(f"[{tag}]" in text for text in made for tag in (*LANGUAGES, "note"))
    for language in LANGUAGES:
        assert exercise.file(language).count("# TODO") == 1
        assert "TODO" not in exercise.solution(language)


@EVERY
def test_the_files_fit_a_narrow_window(exercise: Exercise) -> None:
    for language in LANGUAGES:
        assert max(map(len, exercise.file(language).splitlines())) <= 80
        assert max(map(len, exercise.solution(language).splitlines())) <= 76, "it is shown indented by 4, in 80 columns"
        assert len(exercise.file(language).splitlines()) <= 80


def test_each_exercise_has_a_folder_and_each_folder_is_one() -> None:
    folders = {file.parent.name for file in FOLDER.glob("*/check.py")}
    solutions = {file.stem for file in (FOLDER / "solutions").glob("*.py")} - {"__init__"}
    assert folders == solutions == set(exercises())


def test_lines_for_a_language_and_notes_are_taken_out_and_the_rest_stays() -> None:
    source = '# [note] mine\n# [en] one\n# [es] uno\n#\nx = "# [en] no"\n    # [es]   dentro\n'
    assert in_language(source, "en") == '# one\n#\nx = "# [en] no"\n'
    assert in_language(source, "es") == '# uno\n#\nx = "# [en] no"\n    #   dentro\n'


@pytest.mark.usefixtures("english_again")
def test_words_are_said_in_the_language_in_force() -> None:
    choose_language("es")
    assert said({"en": "the frame header", "es": "la cabecera de trama"}) == "la cabecera de trama"
