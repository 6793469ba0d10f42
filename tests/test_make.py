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


def test_a_failure_that_stays_fails_the_whole_and_one_that_passes_alone_is_named(run, capfd):
    bad = run("bad", "def test_bad(): assert 0")
    many = run("many", "\n".join(f"def test_{n}(): assert 0" for n in range(suite.MOST_SECOND_TRIES + 1)))
    wobbly = run("wobbly", WOBBLY)
    assert suite.side_by_side(run("good", "def test_good(): pass"), [bad, many, wobbly]) == 1
    said = capfd.readouterr().out
    assert "=== Bad: second try of 1 ===" in said and "Good: second" not in said
    assert "Many: second" not in said, "so many are no accident"
    named = said.partition("!!! Passed only when tried again")[2].splitlines()[1]
    assert named.strip() == "test_wobbly.py::test_wobbly"
    last = [line for line in said.splitlines() if line][-2:]
    assert last == ["!!! Failed: Bad (pytest's exit code 1)", "!!! Failed: Many (pytest's exit code 1)"]


def test_what_passes_alone_passes_the_whole(run):
    assert suite.side_by_side(run("good", "def test_good(): pass"), [run("wobbly", WOBBLY)]) == 0
