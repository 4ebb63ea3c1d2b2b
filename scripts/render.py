"""What does Kubernetes get? Each overlay of deploy/kubernetes, rendered by kubectl into deploy/kubernetes/rendered.

`python -m scripts.render` after each change there. The tests read what is rendered, with kubectl or without; its first
line tells of which sources it was made, so that they notice where it is older.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "deploy/kubernetes"
RENDERED = FOLDER / "rendered"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())


def digest() -> str:
    """Changes with every name and byte of the sources."""
    told = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and RENDERED not in path.parents:
            told.update(f"{path.relative_to(FOLDER)}\0".encode() + path.read_bytes() + b"\0")
    return told.hexdigest()


def rendered(overlay: str) -> str:
    """What the sources are now. Raises CalledProcessError where kustomize refuses them."""
    command = ["kubectl", "kustomize", FOLDER / "overlays" / overlay]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return f"# {overlay}, made by scripts/render.py of sources with sha256 {digest()}\n{made}"


def main() -> None:
    """Writes each."""
    for overlay in OVERLAYS:
        (RENDERED / f"{overlay}.yaml").write_text(rendered(overlay))


if __name__ == "__main__":
    main()
