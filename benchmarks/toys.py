"""Every command that writes, on toy models and in the current folder: what ``kills.py`` kills and starts twice."""

from __future__ import annotations

import contextlib
import datetime
import functools
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import saved  # type: ignore[import-not-found]
from unlearnkit import chain, methods
from unlearnkit.chain.commands import add as add_module
from unlearnkit.chain.commands import undo as undo_module
from unlearnkit.chain.project import open_chain
from unlearnkit.cli import main
from unlearnkit.evaluation.attacked.run import attack as attack_run
from unlearnkit.evaluation.evaluate import evaluate_run
from unlearnkit.evaluation.plan import Rules
from unlearnkit.evaluation.verify import verify

__all__ = ["COMMANDS", "STARTS", "Call", "Command", "findings", "settled"]

PROMPTS = "prompt,role,form,object\na cat,erased,name,cat\nmy cat,erased,template,cat\na dog,near,name,dog\n"
QUICK: dict[str, Any] = {"steps": 6, "lr": 1e-3, "batch": 2, "start_steps": 2, "trains": "xattn"}
CPU: dict[str, Any] = {"device": "cpu"}
ON_CPU = ("--device", "cpu")
Call = Callable[[], object]


class Command(NamedTuple):
    """run: what is started. start: the prepared folder it starts from. other: what is started beside it in --two.

    done: whether it is finished and is not to be started again. again: in place of run, after a kill. tidy: once it is
    done, whatever writes to the same place next, and changes nothing.
    """

    run: Call
    start: str
    other: Call
    done: Callable[[], bool] = bool  # never
    again: Call | None = None
    tidy: Call | None = None


def cli(*words: object) -> Call:
    return lambda: main([str(word) for word in words])


def erase(concept: str, *more: str) -> Call:
    settings = [f"--set={name}" for name in ("steps=8", "batch=2", "pictures=4", "retain_weight=1.0")]
    words = ["--method", "ca", "--pictures", "1", "--device", "cpu", "--out", "run", *settings, *more]
    return cli("erase", saved.folder(), "--concept", concept, *words)


def evaluate(run: str, limit: float = 0.1) -> Call:
    rules: Any = {"rules": Rules(limit=limit), **CPU}
    return lambda: evaluate_run(
        run, suite="prompts", file="rows.csv", evaluators=lambda device: saved.tools(), **rules
    )


def attack(seed: int) -> Call:
    how: dict[str, Any] = {"attacks": ["probe", "sdedit"], "evaluators": lambda device: saved.tools(), **CPU}
    return lambda: attack_run("cat", seed=seed, **how)


def init(method: str) -> Call:
    return lambda: chain.init("chain", saved.folder(), method=method, pictures=0, **CPU)


def changed(what: Callable[..., Any], *given: Any, **more: Any) -> Call:
    return lambda: what("chain", *given, evaluators=saved.tools(), **CPU, **more)


def grown(entries: int) -> Callable[[], bool]:
    return lambda: len(open_chain("chain").entries) > entries


def and_removed(place: str, *words: str) -> Call:
    def run() -> None:
        with contextlib.suppress(SystemExit):
            main([*words, place])
        shutil.rmtree(place) if Path(place).is_dir() else Path(place).unlink()

    return run


EXPORT = ("export", "cat", "--lose", "1", *ON_CPU, "--out")
EXPORTED, BUILT, LEDGER = Path("cat.safetensors"), Path("built"), Path("chain/ledger.jsonl")
BUILD = ("chain", "build", "chain", *ON_CPU, "--out")
REPORT = cli("chain", "report", "chain")
# refused, but not before the chain was opened to be written
REFUSED = changed(chain.add, "cat", settings={"no such": 1})
COMMANDS = {
    "erase": Command(erase("cat"), "nothing", erase("dog"), again=erase("cat", "--resume")),
    "evaluate": Command(evaluate("cat"), "runs", evaluate("cat", 0.5)),
    "attack": Command(attack(0), "runs", attack(1)),
    "report": Command(cli("report", "cat"), "evaluated", cli("report", "cat")),
    "compare": Command(cli("compare", "cat", "other"), "evaluated", cli("compare", "other", "cat")),
    "export": Command(
        *(cli(*EXPORT, EXPORTED), "runs", cli(*EXPORT, EXPORTED, "--rank", "1"), EXPORTED.exists),
        tidy=and_removed("second.safetensors", *EXPORT),
    ),
    "chain init": Command(init("esd"), "nothing", init("uce"), LEDGER.exists, tidy=REFUSED),
    "chain add": Command(
        changed(chain.add, "dog"), "chain", changed(chain.add, "tree"), grown(4), tidy=REFUSED
    ),
    "chain drop": Command(changed(chain.drop, 1), "chain", changed(chain.drop, 2), grown(4), tidy=REFUSED),
    "chain undo": Command(changed(chain.undo), "chain", changed(chain.add, "dog"), grown(4), tidy=REFUSED),
    "chain report": Command(REPORT, "chain", REPORT),
    "chain build": Command(
        *(cli(*BUILD, BUILT), "chain", cli(*BUILD, BUILT), BUILT.exists),
        tidy=and_removed("second", *BUILD),
    ),
}


def settled() -> None:
    """From now on the clock stands still, and training writes a checkpoint at every second step, not once a minute."""

    class Still(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1, 1, tzinfo=tz)

    clock: Any = time
    now, job = time.gmtime(0), functools.partial(methods.Job, checkpoint_every=2)
    clock.gmtime, clock.monotonic = lambda *_: now, lambda: 0.0
    module: Any
    for module in (methods, add_module, undo_module):
        module.Job, module.datetime = job, Still


def findings() -> list[str]:
    """What ``verify`` says of the runs and chains in the current folder."""
    found = []
    for place in sorted(Path().iterdir()):
        if (place / "run.json").exists():
            found += verify(place)
        elif (place / "ledger.jsonl").exists():
            found += chain.verify(place)
    return found


UCE = ("--concept", "cat", "--method", "uce", "--pictures", "1", *ON_CPU, "--out")
RUNS: list[Call] = [
    lambda: Path("rows.csv").write_text(PROMPTS, encoding="utf-8"),
    *(
        cli("erase", saved.folder(), *UCE, name, "--set", f"neighbours={n}")
        for n, name in ((0, "cat"), (2, "other"))
    ),
]
STARTS: dict[str, list[Call]] = {  # what is there before the command
    "nothing": [],
    "runs": RUNS,
    "evaluated": [*RUNS, evaluate("cat"), evaluate("other")],
    "chain": [
        lambda: chain.init("chain", saved.folder(), method="esd", settings=QUICK, pictures=1, **CPU),
        *(changed(chain.add, one) for one in ("cat", "car", "bear")),
    ],
}
