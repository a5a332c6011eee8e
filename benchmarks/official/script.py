"""Run a script of a checkout here: on the CPU, with other constants, and with stand-ins for what it imports in vain.

Nothing of the script is copied: its file is read from the checkout, changed as a syntax tree, and executed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["function", "inside", "patched", "quiet", "run"]


class _Other(ast.NodeTransformer):
    """Other constants, and other values where names are assigned."""

    def __init__(self, constants: Mapping[Any, Any], names: Mapping[str, Callable[[], Any]]) -> None:
        self.constants, self.names, self.met = constants, names, set[Any]()

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) in (str, int) and node.value in self.constants:
            self.met.add(node.value)
            return ast.copy_location(ast.Constant(self.constants[node.value]), node)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.targets[0], "id", None) or getattr(node.targets[0], "attr", None)
        if name in self.names:
            self.met.add(name)
            call = ast.Call(ast.Name(f"_given_{name}", ast.Load()), [], [])
            return ast.fix_missing_locations(ast.copy_location(ast.Assign(node.targets, call), node))
        return node


def run(
    path: Path,
    arguments: Sequence[str] = (),
    *,
    constants: Mapping[Any, Any] | None = None,
    names: Mapping[str, Callable[[], Any]] | None = None,
    given: Mapping[str, Any] | None = None,
    main: bool = True,
) -> dict[str, Any]:
    """Execute a script with these arguments, quietly, and return its names.

    constants: other values for literals. names: what makes the value of a variable or attribute where it is assigned.
    given: names that are there before it begins. main: False: only define what it defines.
    Raises LookupError for a constant or variable that the script does not have: then it has changed.
    """
    change = _Other(constants or {}, names or {})
    tree = change.visit(ast.parse(path.read_text(encoding="utf-8")))
    if missing := {*change.constants, *change.names} - change.met:
        raise LookupError(
            f"{path.name} has changed: it has no {', '.join(map(str, sorted(missing, key=str)))}"
        )
    space = {"__name__": "__main__" if main else "official", "__file__": str(path), **(given or {})}
    space |= {f"_given_{name}": make for name, make in change.names.items()}
    before, sys.argv = sys.argv, [str(path), *arguments]
    try:
        with quiet():
            exec(compile(tree, str(path), "exec"), space)
    finally:
        sys.argv = before
    return space


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed or logged inside."""
    logging.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def function(path: Path, *wanted: str, given: Mapping[str, Any] | None = None) -> list[Any]:
    """Functions and classes of a script whose imports cannot be had: they alone are executed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    body: list[ast.stmt] = [node for node in tree.body if isinstance(node, kinds) and node.name in wanted]
    space = dict(given or {})
    exec(compile(ast.Module(body, []), str(path), "exec"), space)
    return [space[name] for name in wanted]


@contextmanager
def inside(checkout: Path, *absent: str, **stand_ins: Mapping[str, Any]) -> Iterator[None]:
    """Work in the checkout: its modules can be imported. Afterwards all is as before.

    absent: modules that have every name and do nothing. stand_ins: the names of modules that are given (a.b as a__b).
    """
    folder, path, there = Path.cwd(), list(sys.path), dict(sys.modules)
    given: dict[str, Mapping[str, Any]] = {name: {} for name in absent}
    given |= {name.replace("__", "."): names for name, names in stand_ins.items()}
    for name, names in given.items():
        sys.modules[name] = _Anything(name)
        vars(sys.modules[name]).update(names)
    sys.path[:0] = [str(checkout), str(checkout.parent / "site")]  # site: what pip installed for theirs
    os.chdir(checkout)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path
        for name, module in dict(sys.modules).items():
            if name in given or str(checkout) in str(getattr(module, "__file__", "")):
                del sys.modules[name]
        sys.modules |= {name: module for name, module in there.items() if name in given}


@contextmanager
def patched(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes (owner, name, value), as they are given inside and as they were afterwards."""
    before = [(owner, name, owner.__dict__.get(name, _Anything)) for owner, name, _ in places]
    for owner, name, value in places:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            delattr(owner, name) if value is _Anything else setattr(owner, name, value)


class _Anything(types.ModuleType):
    """A module that has every name; each is such a module again, and calling it gives another."""

    __path__: ClassVar[list[str]] = []  # type: ignore[misc]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name)

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _Anything("value")
