"""Known vulnerabilities of pinned packages, by pip-audit. A package that was not looked up is never counted as safe."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Audit the lists that are named, else those that the scripts install; returns the exit code."""
    given = [Path(name) for name in sys.argv[1:]] or [
        ROOT / "constraints-hashed.txt",
        ROOT / "scripts" / "tools.txt",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        if not sys.argv[1:]:  # PyTorch stands in no list of hashes
            pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
            given.append(Path(scratch) / "torch.txt")
            given[-1].write_text("\n".join(line for line in pins if line.startswith("torch==")) + "\n")
        asked = [arg for path in given for arg in ("--requirement", str(path))]
        command = ["pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json"]
        done = subprocess.run(
            [sys.executable, "-m", *command, *asked], capture_output=True, text=True, check=False
        )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        why = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1][:160]
        print(f"nothing was audited: {why}", file=sys.stderr)
        return 2
    return judged(found)


def judged(found: list[dict]) -> int:
    """Say what pip-audit found; returns the exit code."""
    for one in found:
        for hole in one.get("vulns", ()):
            mended = ", ".join(hole["fix_versions"]) or "no release"
            print(f"{one['name']} {one['version']}: {hole['id']}, mended in {mended}")
    skipped = [one for one in found if "skip_reason" in one]
    seen = len(found) - len(skipped)
    if skipped:
        print(
            f"{len(skipped)} of {len(found)} packages were not audited: the index did not answer for them "
            f"({skipped[0]['skip_reason']})",
            file=sys.stderr,
        )
    if any(one.get("vulns") for one in found):
        return 1
    if skipped or not seen:
        return 2
    print(f"{seen} packages, no known vulnerability")
    return 0


if __name__ == "__main__":
    sys.exit(main())
