"""What `lumbar --version` shows: this code, and the weights it would use. Keras is not imported."""

import json
import subprocess
from importlib.metadata import distribution
from pathlib import Path

from lumbar import VERSION
from lumbar.errors import WrongSetting
from lumbar.networks.identity import stated_identity
from lumbar.settings import Settings

ROOT = Path(__file__).parents[1]
BUILT_FROM = ROOT / "lumbar" / "COMMIT"  # written when a container image, without .git, is built
GIT_WITHIN_S = 5


def version_lines() -> list[str]:
    """Version and commit; the configured bundle."""
    built_from = commit()
    return [
        f"lumbar-triage {VERSION}" + (f", commit {built_from}" if built_from else ""),
        f"weights: {weights()}",
    ]


def commit() -> str | None:
    """The commit this code was built from, as the build, pip or git states it; else None."""
    if BUILT_FROM.exists():
        return BUILT_FROM.read_text(encoding="utf-8").strip() or None
    return _installed_from() or _checked_out()


def _installed_from() -> str | None:
    """As pip recorded it for `pip install git+https://…` (PEP 610)."""
    origin = json.loads(distribution("lumbar-triage").read_text("direct_url.json") or "{}")
    stated = origin.get("vcs_info", {}).get("commit_id")
    return str(stated) if stated else None


def _checked_out() -> str | None:
    """As git describes the checkout of this code, with ``-dirty`` if a file was changed."""
    if not (ROOT / ".git").exists():
        return None
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, timeout=GIT_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def weights() -> str:
    """The configured bundle's name, version, digest and training data, or why it cannot be read."""
    try:
        identity = stated_identity(Settings.load().bundle)
    except WrongSetting as error:
        return str(error)
    return f"{identity}, sha256 {identity.weights_sha256[:16]}"
