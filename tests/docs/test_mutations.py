"""The table of guards in tools/mutate_guards.py fits the tree; whether tests notice is tried by `make mutate`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.acceptance.stories import STORIES

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutate_guards", ROOT / "tools" / "mutate_guards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


mutate = load()


def test_every_guard_is_where_the_table_says() -> None:
    """Each text is in its file exactly once, and each test is there: after a change here, `make mutate`."""
    assert [] == mutate.misfits()


def test_every_story_is_there() -> None:
    """A story that is named is one of those that are told on a real Nova."""
    named = {m.story for m in mutate.MUTATIONS if m.story}

    assert [] == sorted(named - set(STORIES))


def test_no_guard_is_in_the_table_twice() -> None:
    """Each mutation is another one."""
    all_ = [m.changes for m in mutate.MUTATIONS]

    assert len(all_) == len(set(all_))


@pytest.mark.parametrize(
    ("becomes", "noticed", "wrong"),
    [
        ("return 41", "test_it_is_42", []),
        ("return 42.0", "NONE", ["tests/test_thing.py::test_it_is_42 does not notice"]),
        (
            "return nonsense",
            "test_it_is_42",
            ["tests/test_thing.py::test_it_is_42 fails for another reason: NameError"],
        ),
    ],
)
def test_only_an_assertion_that_fails_is_a_notice(tmp_path: Path, becomes: str, noticed: str, wrong: list[str]) -> None:
    """Code that does not run, and a test that passes all the same, are said to be wrong; and the tree is put back."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "thing.py").write_text("def answer():\n    return 42\n")
    test = "from thing import answer\n\n\ndef test_it_is_42():\n    assert answer() == 42\n"
    (tmp_path / "tests" / "test_thing.py").write_text(test)
    m = mutate.mutation("", "", "thing.py", "return 42", becomes, "tests/test_thing.py::test_it_is_42")

    said = mutate.try_one(tmp_path, m)

    assert (noticed, wrong) == (said[0], [sentence.partition(": name")[0] for sentence in said[1]])
    assert "return 42\n" in (tmp_path / "thing.py").read_text()


STORY = """import sys
from thing import answer
if answer() != 42:
    print("acceptance: 1 faults:\\n  - host.emptied came too early")
    sys.exit(1)
"""


def test_a_story_has_no_fault_before_it_may_have_one(tmp_path: Path) -> None:
    """A story is told with the guard first; only what it then finds without the guard is the guard's."""
    (tmp_path / "tests" / "acceptance").mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests" / "acceptance" / "__init__.py").touch()
    (tmp_path / "tests" / "acceptance" / "__main__.py").write_text(STORY)
    (tmp_path / "thing.py").write_text("def answer():\n    return 42\n")
    m = mutate.mutation("", "", "thing.py", "return 42", "return 41", story="drain")
    blunt = mutate.mutation("", "", "thing.py", "return 42", "return 42.0", story="drain")

    assert ("drain: host.emptied came too early", []) == mutate.tell(tmp_path, m, [], set())
    assert ["the story drain ends without a fault"] == mutate.tell(tmp_path, blunt, [], {"drain"})[1]
    (tmp_path / "thing.py").write_text("def answer():\n    return 43  # not return 42\n")
    with pytest.raises(mutate.Misfit, match="has faults already: host.emptied came too early"):
        mutate.tell(tmp_path, m, [], set())


def test_a_story_that_breaks_off_has_not_noticed_anything(tmp_path: Path) -> None:
    """Python ends a traceback with the exit code of faults; a runner that fell over is not one that found something."""
    (tmp_path / "tests" / "acceptance").mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests" / "acceptance" / "__init__.py").touch()
    (tmp_path / "tests" / "acceptance" / "__main__.py").write_text("raise TimeoutError('the cloud did not answer')\n")

    with pytest.raises(mutate.Misfit, match="the story drain could not be told:(?s:.*)the cloud did not answer"):
        mutate.story_faults(tmp_path, "drain", [])
