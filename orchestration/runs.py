"""Running a job in this process, recorded in the company's Dagster instance."""

import datetime as dt
import errno
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from contracts.company import Company
from contracts.errors import HeldError
from orchestration.assets import metrics, plan, raw
from orchestration.definitions import definitions_of
from orchestration.jobs import FAST_LANE

INSTANCE_CONFIGURATION = Path(__file__).parent / "dagster.yaml"

FROM_COMMAND_LINE = {"healthloop/from": "command line"}
"""The tag of runs that live in the process of a command, and not in a Dagster's."""
LAUNCHED_BY = ".dagster/grpc_info"
"""The tag with which Dagster says which code server has a run's process."""
LOST = "its process ended before it did"
UNDER_WAY = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class Run:
    """A finished run: its id, whether it succeeded, and the first line of what went wrong."""

    run_id: str
    success: bool
    failures: tuple[str, ...]
    warnings: tuple[str, ...]


def instance_folder(company: Company) -> Path:
    """`DAGSTER_HOME` where it is set, else the folder `state/dagster` of the company."""
    given = os.environ.get("DAGSTER_HOME")
    folder = Path(given) if given else company.state / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dagster.yaml").exists():
        shutil.copyfile(INSTANCE_CONFIGURATION, folder / "dagster.yaml")
    return folder


def instance_of(company: Company) -> dg.DagsterInstance:
    """The Dagster instance that holds a company's runs."""
    os.environ["DAGSTER_HOME"] = str(instance_folder(company).resolve())
    return dg.DagsterInstance.get()


def run_days(
    company: Company,
    days: Sequence[dt.date],
    *,
    pull: bool,
    accept_band_changes: bool = False,
    on_step: Callable[[str, str], None] = lambda step, state: None,
) -> Run:
    """Run the job `daily` (with `pull`) or `replay` for some days, as one Dagster run.

    The last day is the run's partition; the others are recorded beside it. `on_step` is told each
    step's name and ``start``, ``end``, or what it says in between.
    """
    *earlier, last = [day.isoformat() for day in sorted(set(days))]
    configured: dict[str, Any] = {"config": {"earlier_days": earlier}}
    of_scores = {"config": {"earlier_days": earlier, "accept_band_changes": accept_band_changes}}
    return _execute(
        company,
        "daily" if pull else "replay",
        partition=last,
        ops={
            metrics.KEY.to_python_identifier(): configured,
            "scores": of_scores,
            plan.KEY.to_python_identifier(): {"config": {"earlier_days": []}},
        },
        on_step=on_step,
    )


def run_news(
    company: Company, *, on_step: Callable[[str, str], None] = lambda step, state: None
) -> Run:
    """Run the job `fast_lane` once: pull, score the accounts with news, plan and write."""
    return _execute(company, FAST_LANE, partition=None, ops={}, on_step=on_step)


def fail_lost_runs(company: Company) -> list[str]:
    """Mark runs as failed that died with the Dagster that launched them, and give their ids.

    Dagster's default launcher cannot tell, so they would be under way for ever, and later runs
    wait for them. Runs of the command line, and of code servers at a port, are left alone.
    """
    with instance_of(company) as instance:
        under_way = instance.get_runs(dg.RunsFilter(statuses=[*UNDER_WAY]))
        lost = [run for run in under_way if _is_lost(run)]
        for run in lost:
            instance.report_run_failed(run, LOST)
    return [run.run_id for run in lost]


def _is_lost(run: dg.DagsterRun) -> bool:
    """Whether the code server that has a run's process is one of this machine, and gone."""
    if FROM_COMMAND_LINE.items() <= run.tags.items():
        return False
    address = json.loads(run.tags.get(LAUNCHED_BY, "{}")).get("socket")
    if address is None:
        return False
    with socket.socket(socket.AF_UNIX) as door:
        return door.connect_ex(address) in (errno.ENOENT, errno.ECONNREFUSED)


def _execute(
    company: Company,
    job: str,
    *,
    partition: str | None,
    ops: dict[str, Any],
    on_step: Callable[[str, str], None],
) -> Run:
    definitions = definitions_of(company)
    run_id = str(uuid.uuid4())
    with instance_of(company) as instance:
        instance.add_event_listener(run_id, lambda entry: _tell(entry, on_step))
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            partition_key=partition,
            run_id=run_id,
            tags=FROM_COMMAND_LINE,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, "ops": ops},
            raise_on_error=False,
        )
    failures, warnings = [], []
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            failures.append(_first_line(event))
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            evaluation = event.asset_check_evaluation_data
            if evaluation.check_name == raw.HEALTHY:
                continue  # others tell of this run; it also shows what the build before found
            if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.WARN:
                told = [evaluation.metadata.get(name) for name in ("cause", "remedy")]
                texts = [str(text.value) for text in told if text]
                warnings.append("; ".join(texts) or evaluation.check_name)
    return Run(result.run_id, result.success, tuple(failures), tuple(warnings))


def _tell(entry: Any, on_step: Callable[[str, str], None]) -> None:
    event = entry.dagster_event
    if event is None:
        if entry.step_key and entry.user_message:
            on_step(entry.step_key, entry.user_message)
    elif event.event_type_value == "STEP_START":
        on_step(event.step_key, "start")
    elif event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE", "STEP_SKIPPED"):
        on_step(event.step_key, "end")


def _first_line(event: Any) -> str:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error.cause or data.error
    return f"{event.step_key}: {error.message.strip().splitlines()[0]}"


def raise_if_held(run: Run) -> None:
    """Raise what stopped a run.

    Raises:
        HeldError: with the first failure, which says what to do.
    """
    if not run.success:
        cause = run.failures[0] if run.failures else "the run was stopped"
        raise HeldError(cause, f"the run is {run.run_id} in the Dagster UI (`healthloop ui`)")
