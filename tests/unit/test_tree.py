"""The tree shows the architecture: the kinds are the modules, the folders belong to us, every module says what for."""

import ast
from pathlib import Path

import consumers
from common.messages.commands import KINDS

ROOT = Path(__file__).parents[2]
PACKAGES = ("common", "consumers", "producers", "datasvc", "phedex_rucio")


def test_kinds_and_modules_are_one_to_one() -> None:
    modules = {path.stem for path in (ROOT / "consumers").glob("*.py")} - {"__init__"}
    assert modules == {kind.replace(".", "_") for kind in KINDS}


def test_the_folders_belong_to_us_alone() -> None:
    """`common` and `consumers` are also taken by packages on PyPI: ours are the ones that are imported."""
    assert list(consumers.__path__) == [str(ROOT / "consumers")]
    for package in PACKAGES:
        assert __import__(package).__path__[0] == str(ROOT / package)


def test_every_module_says_what_it_is_for() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(modules) > 50
    assert [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_modules_are_short() -> None:
    lengths = {
        path: len(path.read_text().splitlines()) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    assert {str(path): lines for path, lines in lengths.items() if lines >= 400} == {}
