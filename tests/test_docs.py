"""The documentation is executed: what a page shows is what happens.

How to write an example that is kept true:

- A file is a fenced block under a line that holds nothing but its path in backticks. It is written
  where it stands on the page, so a later block may correct it.
- Commands stand in ``console`` blocks, after ``$ ``; what follows is their whole output, errors
  included. A line ``...`` stands for any number of lines. ``# exit code 1`` behind a command says
  that it ends so. Run ids, seconds and the reader's home (`/home/you`) may differ.
- ``<!-- not run -->`` on the line before a block leaves it out.

``HEALTHLOOP_UPDATE_DOCS=1 pytest tests/test_docs.py`` writes the real output into the pages, but
for blocks with ``...``.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main
from demo_company import healthloop

from orchestration.cli.commands import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HOME = "/home/you"
UPDATE = bool(os.environ.get("HEALTHLOOP_UPDATE_DOCS"))
SERVERS = ("healthloop ui", "make ui")
"""Commands that do not end by themselves."""

_BLOCK = re.compile(
    r"(?P<skip><!-- not run -->\n)?(?:^`(?P<file>[^`\n]+)`\n\n)?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: a file, or commands with their output."""

    file: str | None
    body: str
    start: int

    @property
    def commands(self) -> list[tuple[str, str]]:
        """The commands and the output that the page shows for each."""
        parts = re.split(r"^\$ (.*)\n", self.body, flags=re.MULTILINE)[1:]
        return list(zip(parts[::2], parts[1::2], strict=True))


def blocks(page: Path) -> Iterator[Block]:
    """The files and the commands of a page, in order."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if found["skip"] or not (found["file"] or found["language"] == "console"):
            continue
        yield Block(found["file"], found["body"], found.start("body"))


def perform(command: str, folder: Path) -> tuple[int, str]:
    """Run a command as a reader would, in `folder`; returns the exit code and the whole output."""
    words = shlex.split(command.replace("make demo", "healthloop demo"), comments=True)
    if words[0] == "healthloop" and ">" not in words:
        both = io.StringIO()
        answer = healthloop(*words[1:], both=both)
        return answer.code, both.getvalue()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def comparable(text: str, folder: Path) -> list[str]:
    """Lines without what differs between two runs."""
    text = text.replace(str(folder), HOME)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<run>", text)
    text = re.sub(r"Ran in [\d.]+ s\.", "Ran in <seconds> s.", text)
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def agrees(shown: list[str], real: list[str]) -> bool:
    """Whether the output is what the page shows, where ``...`` stands for anything."""
    pattern = "".join("(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in real)) is not None


def play(page: Path, folder: Path) -> None:
    """Write the files of a page, run its commands and compare their output."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        if block.file:
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.body, encoding="utf-8")
            continue
        real_body = ""
        for command, shown in block.commands:
            if command.startswith(SERVERS):
                real_body += f"$ {command}\n{shown}"
                continue
            expected = re.search(r"# exit code (\d)", command)
            code, real = perform(command, folder)
            assert code == int(expected[1] if expected else 0), f"$ {command}\n{real}"
            if not UPDATE:
                given, got = comparable(shown, folder), comparable(real, folder)
                assert agrees(given, got), f"{page.name}: $ {command}\n{real}"
            told = "\n".join(line.rstrip() for line in real.replace(str(folder), HOME).splitlines())
            real_body += f"$ {command}\n" + (f"{told.strip()}\n" if told.strip() else "")
        if UPDATE and "\n...\n" not in block.body:
            text = text.replace(block.body, real_body)
    if UPDATE:
        page.write_text(text, encoding="utf-8")


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """An empty folder to work in, and no settings of whoever runs the tests."""
    folder = tmp_path.resolve()
    monkeypatch.chdir(folder)
    for name in ("HEALTHLOOP_HOME", "DAGSTER_HOME", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_a_stranger_connects_their_own_files_as_the_page_shows(reader):
    play(ROOT / "docs/connect-your-data.md", reader)


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_really_prints(reader):
    page = ROOT / "README.md"
    commands = [command for block in blocks(page) for command, _ in block.commands]
    assert commands[0] in ("healthloop demo", "make demo")
    play(page, reader)


def commands_of_all_pages() -> list[str]:
    """What stands behind ``$ ``, at the start of a line of a block, or in the text in backticks."""
    pattern = re.compile(r"^(?:\$ )?(healthloop [a-z].*)$|`(healthloop [a-z][^`\n]*)`", re.M)
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    return sorted({(a or b).strip() for text in texts for a, b in pattern.findall(text)})


@pytest.mark.parametrize("command", commands_of_all_pages())
def test_every_command_on_a_page_exists_with_all_its_options(command):
    words = shlex.split(command.replace("DAY", "2026-06-30").partition(" > ")[0], comments=True)
    name, *arguments = words[1:]
    group = typer.main.get_command(app)
    assert name in group.commands, command
    if name == "explain" and not arguments:
        arguments = ["ACCOUNT"]
    group.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#\s]*)#?[^)\s]*\)", text):
        assert not target or (page.parent / target).exists(), target


def test_the_elision_and_the_comparison_of_outputs_can_fail():
    assert agrees(["a", "...", "c"], ["a", "b", "b", "c"])
    assert not agrees(["a", "...", "c"], ["a", "b"])
    assert not agrees(["a"], ["a", "b"])
    assert not agrees([], ["a"])
    folder = Path("/tmp/x")
    assert comparable("Ran in 3.2 s.\n/tmp/x/company  \n", folder) == [
        "Ran in <seconds> s.", "/home/you/company",
    ]  # fmt: skip
