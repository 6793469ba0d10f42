"""What `make` says, and how `make test` decides: a failure that stays fails it, one that passes alone is named."""

import re
import subprocess

import pytest

from tests import __main__ as suite

pytestmark = [pytest.mark.slow, pytest.mark.once]

WOBBLY = """
from pathlib import Path

def test_wobbly():
    tried = Path("tried")
    was_tried = tried.exists()
    tried.touch()
    assert was_tried
"""


def test_make_alone_lists_every_command():
    makefile = (suite.ROOT / "Makefile").read_text()
    commands = set(re.findall(r"^\.PHONY: (.+)$", makefile, re.M)) - {"runtime dev"}  # those two are parts of others
    said = subprocess.run(["make", "-s"], cwd=suite.ROOT, capture_output=True, text=True, check=True).stdout
    assert {"run", "test", "quick", "check", "setup-link"} <= commands
    assert commands == set(re.findall(r"^  make ([a-z-]+) +\S", said, re.M))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of one file in a folder of its own."""
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    for name in ("DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS"):  # what these runs try has nothing to do with us
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def make(name, text):
        (tmp_path / f"test_{name}.py").write_text(text)
        return suite.Run(name.title(), [f"test_{name}.py"], name, processes=0)

    return make


def test_a_failure_that_stays_fails_the_whole_and_is_named_last(run, capfd):
    good, bad = run("good", "def test_good(): pass"), run("bad", "def test_bad(): assert 0")
    assert suite.side_by_side(good, [bad]) == 1
    said = capfd.readouterr().out
    assert "second try of 1" in said
    assert said.rstrip().endswith("!!! Failed: Bad (pytest's exit code 1)")


def test_what_passes_only_alone_is_named(run, capfd):
    good, wobbly = run("good", "def test_good(): pass"), run("wobbly", WOBBLY)
    assert suite.side_by_side(good, [wobbly]) == 0
    said = capfd.readouterr().out
    assert "!!! Passed only when tried again" in said and "test_wobbly.py::test_wobbly" in said


def test_more_failures_than_an_accident_has_get_no_second_try(run, capfd):
    many = "\n".join(f"def test_{n}(): assert 0" for n in range(suite.MOST_SECOND_TRIES + 1))
    assert suite.side_by_side(run("good", "def test_good(): pass"), [run("many", many)]) == 1
    assert "second try" not in capfd.readouterr().out
