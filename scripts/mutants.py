"""A mutation tester: small changes are made to a module, one at a time; which of them does no fast test notice?

A tool of our own, because cosmic-ray writes each change into the checked-out tree and starts Python anew for each, and
mutmut changes functions alone, where our decisions also stand in tables, patterns and limits at the top of a module.
Here a changed module is written into a copy of the tree, and a process is forked that has pytest and the libraries
already: a change costs little more than its tests.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPLAINED = ROOT / "tests" / "equivalent_mutants.txt"

# Which tests see a module. Those that want a server are left out, whatever their file.
TESTS = {
    "consumers/engine/settle.py": "unit/engine/test_settle.py property/test_settle.py",
    "consumers/engine/killed.py": "unit/engine/test_killed.py",
    "common/cycles.py": "unit/test_cycles.py unit/overview property/test_cycles.py property/test_merged.py",
    "producers/agenda.py": "unit/producers property/test_agenda.py",
    "common/phedex/rows.py": "unit/phedex",
    "common/phedex/trust.py": "unit/phedex/test_trust.py property/test_trust.py integration/test_phedex_transport.py",
    "common/messages/codec.py": "unit/test_codec.py property/test_codec.py",
    "common/settings/checks.py": "unit/settings/test_load.py unit/settings/test_checks.py",
    "common/names.py": "unit/test_names.py unit/test_codec.py",
    "policy/cms_rucio_policy/tfc.py": "unit/test_tfc.py unit/policy",
    "common/sync/guard.py": "unit/test_guard.py property/test_guard.py property/test_removals.py",
    "common/sync/limits.py": "unit/test_guard.py property/test_guard.py",
    "common/sync/diff.py": "unit/test_diff.py property/test_plan.py property/test_removals.py",
    "common/sync/plan.py": "unit/test_plan.py property/test_plan.py property/test_removals.py",
    "common/sync/evidence.py": "unit/test_evidence.py unit/test_guard.py property/test_guard.py",
    "common/sync/keep.py": "unit/test_keep.py property/test_removals.py",
    "common/sync/marks.py": "unit/test_marks.py unit/rucio/test_inventory.py",
    "common/sync/approvals.py": "unit/test_approvals.py",
    "common/sync/reasons.py": "unit/test_reasons.py",
    "common/rucio/announcements.py": "unit/rucio/test_announcements.py",
    "consumers/apply/foreign_locks.py": "unit/test_foreign_locks.py",
    "consumers/apply/last_copy.py": "unit/test_last_copy.py",
}

NOTICED, TOO_LONG, SURVIVED, BROKEN = "noticed", "noticed, for it took too long", "survived", "broken"
NOT_OURS = 99  # the exit code of a process that could not try, or has imported our code from elsewhere than its copy


@dataclass(frozen=True)
class Mutant:
    """One change: where, what stood there, what stands there now, and the whole module with it."""

    module: str
    function: str
    line: int
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        """What a line of the explained ones is compared with: no line number, for those move."""
        return f"{self.module} {self.function}: {self.before} → {self.after}"


# The changes


def mutants_of(module: str, source: str) -> Iterator[Mutant]:
    """Every change of a module that is still Python, each once."""
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for place in _places(tree, ""):
        before = _short(place.node)
        for new in _changes(place):
            place.put(new)
            text = ast.unparse(ast.fix_missing_locations(tree))
            place.put(place.node)
            if text not in seen and _compiles(text):
                seen.add(text)
                yield Mutant(module, place.function, place.node.lineno, before, _short(new), text)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split()) or "nothing"
    return text if len(text) <= 160 else f"{text[:120]} … {text[-39:]}"


def _compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


@dataclass(frozen=True)
class _Place:
    """A statement or expression that can be replaced where it stands."""

    function: str
    parent: ast.AST
    field: str
    index: int | None
    node: ast.stmt | ast.expr

    def put(self, new: ast.AST) -> None:
        """Another node stands in this place."""
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.index] = new


def _places(parent: ast.AST, function: str) -> Iterator[_Place]:
    """All that can be changed below a node, but for types, docstrings and texts for people."""
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "bases", "ctx", "op", "ops"):
            continue
        if isinstance(parent, ast.ClassDef) and field == "keywords":  # that values are frozen is for mypy
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _is_left_out(node, parent):
                continue
            within = function
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                within = f"{function}.{node.name}".lstrip(".")
            if isinstance(node, ast.stmt | ast.expr):
                yield _Place(within or "module", parent, field, index, node)
            yield from _places(node, within)


def _is_left_out(node: ast.AST, parent: ast.AST) -> bool:  # noqa: PLR0911 - a table
    match node:
        case ast.Expr(value=ast.Constant()):  # a docstring
            return True
        case ast.Import() | ast.ImportFrom() | ast.Raise(exc=None):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(value=ast.BinOp(op=ast.BitOr()) | ast.Subscript()) if isinstance(parent, ast.Module):
            return True  # a name for a type
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar") | ast.Attribute(attr="getLogger"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
        case ast.Constant(value=str()):
            return isinstance(parent, ast.JoinedStr)
        case ast.Call() if isinstance(parent, ast.Raise):  # which error is told apart, not its text
            return True
    return False


def _changes(place: _Place) -> Iterator[ast.AST]:  # noqa: PLR0912 - a table
    node = place.node
    yield from _of_statement(node)
    yield from _of_condition(place)
    match node:
        case ast.Constant():
            yield from map(ast.Constant, _other_values(node.value))
        case ast.Compare(left=left, ops=[op], comparators=comparators):
            for other in _OTHER_COMPARISONS.get(type(op), ()):
                yield ast.Compare(left, [other()], comparators)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for at, op in enumerate(ops):
                for other in _OTHER_COMPARISONS.get(type(op), ()):
                    yield ast.Compare(left, [*ops[:at], other(), *ops[at + 1 :]], comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for at in range(len(values)):
                rest = [*values[:at], *values[at + 1 :]]
                yield ast.BoolOp(op, rest) if len(rest) > 1 else rest[0]
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=op, right=right):
            yield left
            yield right
            if type(op) in _OTHER_OPERATORS:
                yield ast.BinOp(left, _OTHER_OPERATORS[type(op)](), right)
        case ast.Call(func=func, args=args, keywords=keywords):
            yield from _of_call(func, args, keywords)
        case ast.Slice(lower=lower, upper=upper, step=step):
            if lower is not None:
                yield ast.Slice(None, upper, step)
            if upper is not None:
                yield ast.Slice(lower, None, step)
        case ast.Tuple(elts=parts, ctx=ast.Load()) | ast.List(elts=parts, ctx=ast.Load()) | ast.Set(elts=parts):
            if len(parts) > 1:
                for at in range(len(parts)):
                    rest = [*parts[:at], *parts[at + 1 :]]
                    yield ast.Set(rest) if isinstance(node, ast.Set) else type(node)(rest, ast.Load())
        case ast.Dict(keys=keys, values=values):
            for at in range(len(keys)):
                yield ast.Dict([*keys[:at], *keys[at + 1 :]], [*values[:at], *values[at + 1 :]])


_OTHER_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OTHER_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_OTHER_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TRIMMING = ("strip", "lower", "upper", "casefold", "total_seconds")


def _of_statement(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield ast.Pass()
        case ast.AnnAssign(value=ast.expr()) if not node.simple or isinstance(node.target, ast.Attribute):
            yield ast.Pass()
        case ast.Return(value=value) if value is not None:
            if not isinstance(value, ast.Constant):
                yield ast.Return(ast.Constant(None))
            if isinstance(value, ast.Compare | ast.BoolOp):
                yield ast.Return(ast.UnaryOp(ast.Not(), value))
        case ast.Return():
            yield ast.Pass()


def _of_condition(place: _Place) -> Iterator[ast.AST]:
    """A condition that always holds, and one that never does. (A loop that never ends is no change worth a minute.)"""
    if place.field == "test" and not isinstance(place.node, ast.Constant):
        if not isinstance(place.parent, ast.While):
            yield ast.Constant(True)
        yield ast.Constant(False)
    if place.field == "ifs":
        yield ast.Constant(True)
        yield ast.Constant(False)


def _other_values(value: object) -> Iterator[bool | int | float | str | bytes]:
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
            yield value - 1
        case str():
            yield f"{value}XX"
            if value:
                yield ""
            # The limits of a regular expression's repetitions.
            for found in re.finditer(r"(?<=[{,])\d+(?=[,}])", value):
                for number in (int(found[0]) - 1, int(found[0]) + 1):
                    yield f"{value[: found.start()]}{number}{value[found.end() :]}"
        case bytes():
            yield value + b"XX"


def _of_call(func: ast.expr, args: list[ast.expr], keywords: list[ast.keyword]) -> Iterator[ast.AST]:
    match func:
        case ast.Name(id=name) if name in _OTHER_FUNCTIONS:
            yield ast.Call(ast.Name(_OTHER_FUNCTIONS[name], ast.Load()), args, keywords)
        case ast.Name(id="sorted"):
            yield args[0]
        case ast.Attribute(value=value, attr=name) if name in _TRIMMING and not args:
            yield value
    for at in range(len(keywords)):
        yield ast.Call(func, args, [*keywords[:at], *keywords[at + 1 :]])


# Trying them


@dataclass
class _Copy:
    """A copy of the tree, in which one change at a time is tried."""

    root: Path
    trying: Mutant | None = None


class _Limits:
    """How long the tests of a module may take: several times what they took unchanged, however busy the machine."""

    def __init__(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = round(60 + 20 * wall), round(10 + 5 * cpu)


def tried(module: str, copies: list[_Copy]) -> Iterator[tuple[Mutant, str]]:
    """What became of every change of a module, in the order in which they ended."""
    source = (copies[0].root / module).read_text()
    if not _files(copies[0].root, module):
        yield from ((mutant, SURVIVED) for mutant in mutants_of(module, source))
        return
    limits = _unchanged(module, copies)
    todo, running, free = list(mutants_of(module, source)), dict[int, _Copy](), list(copies)
    while todo or running:
        while todo and free:
            copy = free.pop()
            copy.trying = todo.pop(0)
            (copy.root / module).write_text(copy.trying.source)
            running[_forked(copy, module, limits, quiet=True)] = copy
        pid, status = os.wait()
        copy = running.pop(pid)
        assert copy.trying is not None
        free.append(copy)
        yield copy.trying, _word(status)
    for copy in copies:
        (copy.root / module).write_text(source)


def _unchanged(module: str, copies: list[_Copy]) -> _Limits:
    """The tests pass as long as nothing is changed, and this is how long they may take. SystemExit if they do not."""
    for copy in copies:
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        _, status = os.waitpid(_forked(copy, module, _Limits(600, 600), quiet=False), 0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if _word(status) != SURVIVED:
            print(_said(copy.root).read_text())
            raise SystemExit(f"{module}: its tests fail as it stands: nothing can be said of changes")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        for stale in (copy.root / module).parent.glob(f"__pycache__/{Path(module).stem}.*.pyc"):
            stale.unlink()
    _load((copies[0].root / "tmp" / "libraries").read_text().split())
    return _Limits(time.monotonic() - begun, cpu)


def _load(libraries: list[str]) -> None:
    """Every process that is forked from now on has them."""
    for name in libraries:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _word(status: int) -> str:
    if os.WIFSIGNALED(status):
        return TOO_LONG
    code = os.WEXITSTATUS(status)
    if code == NOT_OURS:
        raise SystemExit("the tests import the module from elsewhere than the copy, or not at all")
    return {0: SURVIVED, 5: BROKEN}.get(code, NOTICED)


def _forked(copy: _Copy, module: str, limits: _Limits, *, quiet: bool) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = NOT_OURS
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.alarm(limits.wall)
            resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu, limits.cpu))
            code = _run_tests(copy.root, module, quiet)
        except BaseException:  # noqa: BLE001 - whatever it is, it must not run on as if it were the parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)  # what the parent would do at its end, such as to remove the copies, is not done here
    return pid


def _run_tests(root: Path, module: str, quiet: bool) -> int:
    import pytest  # noqa: PLC0415

    os.chdir(root)
    os.environ["TMPDIR"] = str(root / "tmp")
    tempfile.tempdir = None
    elsewhere = {str(ROOT), str(ROOT / "policy"), ""}
    sys.path[:] = [str(root), str(root / "policy"), *(place for place in sys.path if place not in elsewhere)]
    sys.modules.pop("scripts", None)
    sys.dont_write_bytecode = quiet  # two changes of one length in one second would share it
    said = os.open(os.devnull if quiet else _said(root), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not broker and not rucio", "--hypothesis-seed=0"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of libraries that the parent has imported
    code = int(pytest.main([*options, *_files(root, module)], plugins=[_Quick()]))
    if not quiet:
        (root / "tmp" / "libraries").write_text("\n".join(_libraries(root)))
    return code if quiet or _is_from(root, module) else NOT_OURS


def _said(root: Path) -> Path:
    """What the tests say as long as nothing is changed."""
    return root / "tmp" / "said"


def _libraries(root: Path) -> list[str]:
    """What the tests have imported besides ours. Rucio's client decides at its import where its token files lie."""
    loaded = [(name, getattr(one, "__file__", None) or str(root)) for name, one in list(sys.modules.items())]
    return [name for name, file in loaded if not file.startswith(str(root)) and name.partition(".")[0] != "rucio"]


def _files(root: Path, module: str) -> list[str]:
    return [f"tests/{name}" for name in TESTS[module].split() if (root / "tests" / name).exists()]


def _is_from(root: Path, module: str) -> bool:
    """The module, and all of ours that was imported with it, lies in the copy."""
    files = [getattr(one, "__file__", None) for one in list(sys.modules.values())]
    ours = [file for file in files if file and file.startswith(f"{ROOT}/") and "/.venv/" not in file]
    return str(root / module) in files and set(ours) <= {__file__}


class _Quick:
    """What Hypothesis found is not made smaller, nor kept: that something was found is enough."""

    def pytest_collection_modifyitems(self, items: list[object]) -> None:
        from hypothesis import Phase, settings  # noqa: PLC0415

        for item in items:
            function = getattr(item, "function", None)
            usual = getattr(function, "_hypothesis_internal_use_settings", None)
            if function is not None and usual is not None:
                function._hypothesis_internal_use_settings = settings(
                    usual, phases=[Phase.explicit, Phase.generate], database=None
                )


# Telling


@dataclass(frozen=True)
class Explained:
    """A change that nothing can notice: how it reads (`*` for anything) and why."""

    pattern: str
    why: str

    def covers(self, mutant: Mutant) -> bool:
        """True if it is this change, or one of these."""
        return re.fullmatch(re.escape(self.pattern).replace(r"\*", ".*"), mutant.change) is not None


def explained(text: str) -> list[Explained]:
    """The entries of the file: a change in the first column, below it and indented the reason."""
    found: list[Explained] = []
    for line in text.splitlines():
        if line.startswith(" ") and found:
            found[-1] = Explained(found[-1].pattern, f"{found[-1].why} {line.strip()}".strip())
        elif line.strip() and not line.startswith("#"):
            found.append(Explained(line.strip(), ""))
    for one in found:
        if not one.why:
            raise SystemExit(f"{EXPLAINED.name}: no reason below {one.pattern}")
    return found


def report(module: str, copies: list[_Copy], known: list[Explained]) -> int:
    """The survivors that nobody has explained are printed; how many there are."""
    counts: Counter[str] = Counter()
    survivors: list[Mutant] = []
    new = 0
    for mutant, word in tried(module, copies):
        counts[word] += 1
        if word in (SURVIVED, BROKEN):
            survivors.append(mutant)
            if not any(entry.covers(mutant) for entry in known):
                new += 1
                print(f"{module}:{mutant.line} {mutant.function}: {mutant.before} → {mutant.after}", flush=True)
    for entry in known:
        if entry.pattern.startswith(f"{module} ") and not any(entry.covers(one) for one in survivors):
            print(f"explained, and noticed all the same or not there any more: {entry.pattern}")
    total, lived = sum(counts.values()), len(survivors)
    print(f"{module}: {total} changes, {total - lived} noticed, {lived - new} explained, {new} not noticed")
    sys.stdout.flush()
    return new


def main() -> int:
    """Exit code 1 where a change was not noticed and is not explained."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"one of {', '.join(TESTS)}; all without any")
    parser.add_argument("--jobs", type=int, default=2, help="how many changes are tried at the same time (default 2)")
    options = parser.parse_args()
    for module in options.modules:
        if module not in TESTS:
            parser.error(f"{module}: no tests are known that see it; the table is in scripts/mutants.py")
    known = explained(EXPLAINED.read_text() if EXPLAINED.exists() else "")
    import hypothesis  # noqa: F401, PLC0415 - here and now, so that every process that is forked has them
    import pytest  # noqa: F401, PLC0415

    os.nice(10)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the copies are removed
    scratch = Path(tempfile.mkdtemp(prefix="phedex-rucio-mutants-"))
    try:
        copies = [_copied(scratch / str(number)) for number in range(options.jobs)]
        modules = options.modules or [module for module in TESTS if (ROOT / module).exists()]
        left = sum(report(module, copies, known) for module in modules)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(left > 0)


def _copied(root: Path) -> _Copy:
    """The tree as it stands, with what is not committed yet, and without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / "tmp").mkdir()
    return _Copy(root)


if __name__ == "__main__":
    raise SystemExit(main())
