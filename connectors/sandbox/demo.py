"""The company of `healthloop demo`: a company folder from the template, and its synthetic world.

The world's files are not read by the company: the sandbox serves them as its vendors' APIs.
"""

import datetime as dt
import json
import re
import shutil
from pathlib import Path

from connectors.sandbox.servers.box import credentials
from connectors.sandbox.world import WorldTruth, write_world
from contracts.errors import InputError

TEMPLATE = Path(__file__).parent / "company"
WORLD = Path("sandbox") / "world"
"""Where a company folder keeps its synthetic world."""

MARKER = ".demo"
PORT = 8787
"""Where the sandbox listens, unless told otherwise; its TLS port is the next one."""

_HISTORY = dt.timedelta(days=637)  # what the template leaves between history_start and today


def write_demo_company(
    home: Path,
    *,
    seed: int = 7,
    accounts: int = 2000,
    today: dt.date = dt.date(2026, 6, 30),
    port: int = PORT,
) -> WorldTruth | None:
    """Make a company folder: YAML, a `.env` for the sandbox on `port`, and a synthetic world.

    A folder that holds this very demo is left as it is, with all that was edited in it, and None
    is returned. The marker is completed last, so an interrupted demo is made again.

    Raises:
        InputError: the folder holds something else, or a demo of another size, seed, day or port.
    """
    wanted = {"seed": seed, "accounts": accounts, "today": today.isoformat(), "port": port}
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
    _set_port(home / "sources", port)
    lines = [f"{name}={value}\n" for name, value in sorted(credentials().items())]
    (home / ".env").write_text("".join(lines), encoding="utf-8")
    truth = write_world(home / WORLD, seed=seed, accounts=accounts, today=today)
    marker.write_text(json.dumps({**wanted, "complete": True}) + "\n", encoding="utf-8")
    return truth


def sandbox_port(home: Path) -> int | None:
    """The port on which a demo company expects its sandbox; None for any other company."""
    made = _read_marker(home / MARKER)
    port = made.get("port") if made else None
    return port if isinstance(port, int) else None


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


def _set_port(sources: Path, port: int) -> None:
    for file in sources.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        text = text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{port}")
        text = text.replace(f"127.0.0.1:{PORT + 1}", f"127.0.0.1:{port + 1}")
        file.write_text(text, encoding="utf-8")
