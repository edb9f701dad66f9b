"""What Dagster loads: the assets of one company, its jobs, schedules and resources.

The company is the folder in `HEALTHLOOP_HOME` (default `./company`). Where there is none yet, the
demo's template is shown, so that the graph can be looked at before anything is set up.
"""

from dataclasses import replace
from pathlib import Path

import dagster as dg

from connectors.crm.settings import read_crm
from connectors.sandbox.demo import TEMPLATE
from connectors.sources import read_sources
from contracts.company import Company, home_from_environment, read_company
from orchestration.assets.actions import triggers_asset
from orchestration.assets.crm import crm_assets
from orchestration.assets.metrics import metrics_asset
from orchestration.assets.plan import plan_asset
from orchestration.assets.raw import raw_asset
from orchestration.assets.scores import scores_assets
from orchestration.assets.signals import ACCOUNT_KEYS, fed_tables, signals_assets
from orchestration.jobs import EXECUTOR, jobs
from orchestration.resources import CompanyFolder, PullsOfRun, warehouse_of
from orchestration.schedules import schedules


def definitions_of(company: Company, *, home: Path | None = None) -> dg.Definitions:
    """The definitions of one company; runs read the folder `home`, by default the company's own.

    Raises:
        ConfigurationError: `sources/` or `crm.yaml` has mistakes.
    """
    sources = read_sources(company)
    folder = CompanyFolder(home=str(home or company.home))
    crm = read_crm(company)
    tables = [*dict.fromkeys([*fed_tables(sources), ACCOUNT_KEYS.path[-1]])]
    return dg.Definitions(
        assets=[
            *(raw_asset(source) for source in sources if not source.in_place),
            signals_assets(sources),
            metrics_asset(company, tables),
            scores_assets(company),
            plan_asset(company),
            triggers_asset(company),
            *(crm_assets(company) if crm else ()),
        ],
        jobs=jobs(crm),
        schedules=schedules(company, crm),
        resources={
            "company_folder": folder,
            "pulls": PullsOfRun(company_folder=folder),
            "warehouse": warehouse_of(replace(company, home=(home or company.home).resolve())),
        },
        executor=EXECUTOR,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads, and only Dagster: a broken company must not break `healthloop check`."""
    home = home_from_environment()
    if (home / "company.yaml").is_file():
        return definitions_of(read_company(home))
    return definitions_of(read_company(TEMPLATE), home=home)
