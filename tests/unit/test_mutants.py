"""Which changes the mutation tester makes, and which of them count as explained."""

from __future__ import annotations

import pytest

from scripts.mutants import EXPLAINED, TESTS, Explained, Mutant, explained, mutants_of

MODULE = '''
"""A docstring stays."""
LIMIT = 5

def f(x: int | None, names: list[str]) -> str:
    if x is None or x > LIMIT and names:
        raise ValueError(f"{x} is too much")
    return names[0]
'''


def changes(source: str) -> set[str]:
    return {f"{mutant.before} → {mutant.after}" for mutant in mutants_of("m.py", source)}


def test_comparisons_conditions_constants_statements_and_results_change() -> None:
    assert changes(MODULE) >= {
        "5 → 6",
        "5 → 4",
        "x > LIMIT → x >= LIMIT",
        "x > LIMIT → x <= LIMIT",
        "x is None → x is not None",
        "x > LIMIT and names → x > LIMIT or names",
        "x > LIMIT and names → names",
        "x is None or (x > LIMIT and names) → False",
        "return names[0] → return None",
        "raise ValueError(f'{x} is too much') → pass",
    }


def test_types_docstrings_and_texts_for_people_stay() -> None:
    told = " ".join(changes(MODULE))
    assert "docstring" not in told
    assert "too muchXX" not in told
    assert "int | None" not in told


def test_the_limits_of_an_expression_change() -> None:
    assert {"'a{1,9}' → 'a{1,8}'", "'a{1,9}' → 'a{1,10}'", "'a{1,9}' → 'a{2,9}'"} <= changes("A = 'a{1,9}'")


def test_each_change_is_python_and_made_once() -> None:
    made = list(mutants_of("m.py", MODULE))
    assert len({mutant.source for mutant in made}) == len(made) > 10
    for mutant in made:
        compile(mutant.source, "m", "exec")


def test_a_place_is_its_function_and_line() -> None:
    (found,) = [mutant for mutant in mutants_of("m.py", MODULE) if mutant.after == "return None"]
    assert (found.change, found.line) == ("m.py f: return names[0] → return None", 8)


def test_an_explained_change_has_a_reason_and_covers_no_other() -> None:
    entries = explained("# a note\n\nm.py f: [0] → *\n    One is as good\n    as the other.\n")
    assert entries == [Explained("m.py f: [0] → *", "One is as good as the other.")]
    assert entries[0].covers(Mutant("m.py", "f", 1, "[0]", "[1]", ""))
    assert not entries[0].covers(Mutant("m.py", "f", 1, "[1]", "[0]", ""))
    assert not entries[0].covers(Mutant("m.py", "g", 1, "[0]", "[1]", ""))
    with pytest.raises(SystemExit, match=r"no reason below m\.py f: a → b"):
        explained("m.py f: a → b\n")


def test_all_that_is_explained_is_of_a_module_in_the_table() -> None:
    for entry in explained(EXPLAINED.read_text()):
        assert entry.pattern.partition(" ")[0] in TESTS
