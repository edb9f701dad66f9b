"""The company of `healthloop demo`: a company folder from the template, and its synthetic files."""

import datetime as dt
import json
import re
import shutil
from pathlib import Path

from connectors.sandbox.world import WorldTruth, write_world
from contracts.errors import InputError

TEMPLATE = Path(__file__).parent / "company"
MARKER = ".demo"
_HISTORY = dt.timedelta(days=637)  # what the template leaves between history_start and today


def write_demo_company(
    home: Path, *, seed: int = 7, accounts: int = 2000, today: dt.date = dt.date(2026, 6, 30)
) -> WorldTruth | None:
    """Make a company folder with YAML, mappings and the files of a synthetic world.

    A folder that holds this very demo is left as it is, with all that was edited in it, and None
    is returned. The marker is completed last, so an interrupted demo is made again.

    Raises:
        InputError: the folder holds something else, or a demo of another size, seed or day.
    """
    wanted = {"seed": seed, "accounts": accounts, "today": today.isoformat()}
    marker = home / MARKER
    made = _read_marker(marker)
    if made is None and home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise InputError(f"{home} is not a demo company", "name a folder that does not exist yet")
    if made is not None:
        complete = made.pop("complete", False)
        if made != wanted:
            says = ", ".join(f"{name} {value}" for name, value in made.items())
            raise InputError(
                f"{home} holds another demo ({says})", "delete it, or name another folder"
            )
        if complete:
            return None
    home.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({**wanted, "complete": False}) + "\n", encoding="utf-8")
    shutil.copytree(
        TEMPLATE, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    _set_days(home / "company.yaml", today)
    truth = write_world(home / "files", seed=seed, accounts=accounts, today=today)
    marker.write_text(json.dumps({**wanted, "complete": True}) + "\n", encoding="utf-8")
    return truth


def _read_marker(marker: Path) -> dict[str, object] | None:
    """What the marker says, or None where there is none that can be read."""
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _set_days(file: Path, today: dt.date) -> None:
    """Pin the demo's clock, and keep the history as long as the template has it."""
    text = file.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^today: \S+", f"today: {today}", text)
    text = re.sub(r"(?m)^history_start: \S+", f"history_start: {today - _HISTORY}", text)
    file.write_text(text, encoding="utf-8")
