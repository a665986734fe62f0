from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.words import choose_language
from lab.attempt import Attempt, OpenElsewhere, check_in_words, latest, new, report_in_words, write_report


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    choose_language("en")
    monkeypatch.setenv("WIRELAB_STATE", str(tmp_path))
    return tmp_path


def half_way() -> Attempt:
    attempt = new("01")
    attempt.step = "octets"
    attempt.predictions["count"] = {"question": "¿Cuántas?", "answer": "3", "words": "3", "at": "2030-01-01T12:00:00Z"}
    attempt.runs["once"] = {"facts": {"frames": 34}, "seconds": 0.5, "at": "2030-01-01T12:01:00Z"}
    attempt.save()
    attempt.capture("once").write_bytes(b"")
    return attempt


def test_nothing_is_there_before_the_first_attempt(state: Path) -> None:
    assert latest("01") is None
    assert new("01").folder == state / "labs" / "01" / "1"


def test_an_attempt_comes_back_as_it_was_kept() -> None:
    kept, back = half_way(), latest("01")
    assert back is not None
    assert vars(back) == vars(kept)
    assert latest("02") is None


def test_the_tenth_attempt_comes_after_the_ninth() -> None:
    for _time in range(10):
        new("01").save()
    back = latest("01")
    assert back is not None
    assert back.folder.name == "10"
    assert new("01").folder.name == "11"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"predictions": []}', '{"step": 5}', "null", "\0"])
def test_what_cannot_be_read_is_no_attempt_to_go_on_with(content: str) -> None:
    (half_way().folder / "attempt.json").write_text(content, encoding="utf-8")
    assert latest("01") is None
    assert new("01").folder.name == "2"


def test_what_an_older_kit_did_not_write_is_as_in_a_new_attempt() -> None:
    file = half_way().folder / "attempt.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["seconds"]
    file.write_text(json.dumps({**content, "from the future": 1}), encoding="utf-8")
    back = latest("01")
    assert back is not None
    assert back.seconds == {}
    assert back.step == "octets"


def test_what_another_terminal_kept_meanwhile_is_not_written_over() -> None:
    half_way()
    here, there = latest("01"), latest("01")
    assert here is not None
    assert there is not None
    there.step = "end"
    there.save()
    there.save()
    with pytest.raises(OpenElsewhere):
        here.save()
    back = latest("01")
    assert back is not None
    assert back.step == "end"
    with pytest.raises(OpenElsewhere):
        Attempt("01", back.folder).save()


def test_a_run_is_forgotten_without_its_capture_or_a_fact_that_is_named_now() -> None:
    attempt = half_way()
    attempt.forget_runs_that_lack({"once": {"frames"}, "another": {"octets"}})
    assert [*attempt.runs] == ["once"]
    attempt.forget_runs_that_lack({"once": {"frames", "octets"}})
    assert not attempt.runs
    attempt = half_way()
    attempt.capture("once").unlink()
    attempt.forget_runs_that_lack({})
    assert not attempt.runs


def test_a_report_says_what_was_predicted_and_what_happened(tmp_path: Path) -> None:
    attempt = half_way()
    attempt.checks = [
        {"says": "One is one.", "holds": True, "found": "1"},
        {"says": "Two is two.", "holds": False, "found": "3"},
    ]
    report = attempt.report("Ana", "Frames", {"count": "1"}, automatic=False)
    file = write_report(report, tmp_path / "new" / "folder")
    assert file.name == "lab01-ana.txt"
    assert json.loads(file.with_suffix(".json").read_text(encoding="utf-8")) == report
    assert file.read_text(encoding="utf-8") == (
        "Lab 01 · Frames · Ana\n\n¿Cuántas?\n  predicted  3\n  happened   1\n\n✓ One is one.\n✗ Two is two. (3)\n"
    )
    assert "nobody's" in report_in_words({**report, "automatic": True})
    assert report["facts"] == {"once": {"frames": 34}}


def test_a_check_that_holds_needs_no_explanation() -> None:
    assert check_in_words({"says": "So it is.", "holds": True, "found": "this"}) == "✓ So it is."
