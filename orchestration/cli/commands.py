"""The commands of `healthloop`, each with an example."""

from collections.abc import Callable

import typer

from orchestration.cli import alerting, asking, checking, running, serving, sourcing, writing

app = typer.Typer(
    help="Explained risk and upsell scores for SaaS customers, computed in Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

COMMANDS: dict[Callable[..., None], str] = {
    running.demo: "healthloop demo --accounts 500",
    running.run: "healthloop run --from 2026-01-01 --to 2026-06-30 --every month-end",
    checking.check: "healthloop check --home company",
    asking.scores: "healthloop scores --score risk --band red --format csv > red.csv",
    asking.explain: "healthloop explain ACC-00042 --since 2026-06-01",
    checking.catalogue: "healthloop catalogue > catalogue.md",
    writing.apply: "healthloop apply",
    writing.queue: 'healthloop queue --owner "Mia Ferrari"',
    writing.playbooks: "healthloop playbooks champion-left",
    writing.provision: "healthloop provision salesforce",
    asking.gaps: "healthloop gaps --format csv > gaps.csv",
    checking.doctor: "healthloop doctor",
    alerting.alerts: "healthloop alerts --test",
    checking.schemas: "healthloop schemas",
    running.ui: "healthloop ui --port 3000",
    serving.sandbox: "healthloop sandbox --port 8787",
}

for command, example in COMMANDS.items():
    app.command(epilog=f"Example:  {example}")(command)

app.add_typer(writing.plans, name="plan", epilog="Example:  healthloop plan --all")
app.add_typer(sourcing.app, name="sources", epilog="Example:  healthloop sources --format csv")
