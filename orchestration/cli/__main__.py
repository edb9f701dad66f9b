"""`python -m orchestration.cli` is `healthloop`."""

from orchestration.cli import main

main()
