"""A sweep in several processes, on this machine or by SLURM. Starting and watching them is submitit's work."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io.tick import Tick
from .plan import Sweep
from .work import begin, is_finished, share

__all__ = ["in_processes"]

WAIT = 1.0  # seconds between looks at the workers
DAYS = 30 * 24 * 60  # minutes, unless the user says another timeout


def in_processes(
    file: Path,
    sweep: Sweep,
    out: Path,
    *,
    workers: int,
    engine: str = "local",
    parameters: Mapping[str, Any] | None = None,
    device: str | None = None,
    tick: Tick | None = None,
) -> dict[str, str]:
    """``carry_out`` divided among ``workers`` processes; returns what failed, and why, by the cell's name.

    parameters: of submitit's executor, such as ``{"slurm_partition": "gpu", "timeout_min": 600}``. Their logs are in
    ``out/workers``. An interrupt ends them.

    Raises InputError if submitit is missing, or a worker ended before its work.
    """
    try:
        submitit = importlib.import_module("submitit")
    except ImportError:
        raise InputError(
            "several processes need the extra 'sweep': pip install 'unlearnkit[sweep]', or leave out --workers"
        ) from None
    begin(sweep, out)
    try:
        executor = submitit.AutoExecutor(folder=out.resolve() / "workers", cluster=engine)
        executor.update_parameters(**{"timeout_min": DAYS, **(parameters or {})})
    except Exception as error:  # SLURM is missing, or a parameter unknown; submitit raises several kinds
        raise InputError(f"{engine} cannot be used: {' '.join(str(error).split())}") from None
    path, place = str(file.resolve()), str(out.resolve())
    jobs = [executor.submit(share, path, place, worker, workers, device) for worker in range(workers)]
    try:
        while not all(job.done() for job in jobs):
            if tick:
                done = sum(is_finished(out / cell.name, sweep) for cell in sweep.cells)
                tick("cells", done, len(sweep.cells))
            time.sleep(WAIT)
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel()
        raise
    failed: dict[str, str] = {}
    for job in jobs:
        if (ended := job.exception()) is not None:
            raise InputError(
                f"a worker ended before its work ({str(ended).strip().splitlines()[-1]}); its log is "
                f"{job.paths.stderr}; the same command continues"
            )
        failed |= job.result()
    return failed
