"""From `crm.yaml` to writers: settings of the source, credentials for writing, the right org."""

from collections.abc import Mapping
from typing import Any

from connectors import vendors
from connectors.api import ApiConfig, check_account
from connectors.api_pull import ACCOUNT
from connectors.crm.settings import CrmSettings, Target
from connectors.crm.writing import CrmName, CrmWriter, Provisioner
from connectors.lake import Lake
from connectors.sources import read_sources
from contracts.company import Company
from contracts.secrets import Secrets


def config_of(company: Company, crm: CrmName, target: Target) -> ApiConfig:
    """The settings of a target's source, with its own credentials for writing."""
    source = next(source for source in read_sources(company) if source.name == target.source)
    assert isinstance(source.config, ApiConfig)
    config: ApiConfig = _module(crm).merged_config(source.config, target)
    return config


def open_writer(company: Company, crm: CrmName, target: Target) -> CrmWriter:
    """The writer of one CRM; nothing is sent yet.

    Raises:
        SourceRefused: a secret is missing.
    """
    config = config_of(company, crm, target)
    writer: CrmWriter = _module(crm).connect_writer(config, target, Secrets(company.home))
    return writer


def open_writers(company: Company, settings: CrmSettings) -> dict[CrmName, CrmWriter]:
    """The writers of all CRMs that `crm.yaml` names."""
    return {crm: open_writer(company, crm, target) for crm, target in settings.targets.items()}


def check_accounts(
    company: Company, settings: CrmSettings, writers: Mapping[CrmName, CrmWriter]
) -> dict[CrmName, str]:
    """Make sure that what was read from one organisation is not written into another.

    Returns whose data each writer opens.

    Raises:
        SourceRefused: the credentials for writing open another account than those for reading, or
            than `expect_account` says.
    """
    return {
        crm: right_account(company, crm, target, writers[crm])
        for crm, target in settings.targets.items()
    }


def right_account(company: Company, crm: CrmName, target: Target, writer: CrmWriter) -> str:
    """The account that a writer opens, if it is the one that is read from.

    Raises:
        SourceRefused: it is another one, or not the one of `expect_account`.
    """
    expected = config_of(company, crm, target).expect_account
    account = writer.account()
    check_account(
        account, expected or _read_from(company, crm, target), vendor=crm,
        whose=f"{crm}: the credentials for writing",
        remedy="use credentials of the organisation that is read from",
    )  # fmt: skip
    return account


def _read_from(company: Company, crm: CrmName, target: Target) -> str | None:
    """The account that the source was read from; None where only these credentials can tell.

    It is remembered with the last pull: a record's id leads to the same record in a copy of the
    organisation, so credentials that were changed since must not pass.
    """
    remembered = Lake(company).positions(target.source).get(ACCOUNT, {}).get("id")
    if remembered is not None or not target.credentials:
        return remembered
    source = next(source for source in read_sources(company) if source.name == target.source)
    assert isinstance(source.config, ApiConfig)
    vendor = vendors.vendor(crm)
    reader = vendor.connect(source.config, Secrets(company.home))
    return vendor.account(reader, source.config)


def open_provisioner(
    company: Company,
    crm: CrmName,
    target: Target,
    *,
    admin_token: str | None = None,
    assign_to: str | None = None,
) -> Provisioner:
    """What makes the fields that a CRM lacks; nothing is made yet.

    Args:
        admin_token: The environment variable with an admin's token, to be used in place of the
            integration's credentials.
        assign_to: The integration's user name, where an admin's token is used (Salesforce).

    Raises:
        SourceRefused: the credentials open another account than the one that is read from.
    """
    if admin_token is not None:
        name = "access_token" if crm == "salesforce" else "token"
        target = target.model_copy(update={"credentials": {name: {"env": admin_token}}})
    right_account(company, crm, target, open_writer(company, crm, target))
    config, secrets = config_of(company, crm, target), Secrets(company.home)
    lent = {"lent": admin_token is not None}
    others = {"assign_to": assign_to} if crm == "salesforce" else lent
    made = _provision(crm).connect_provisioner(config, target, secrets, **others)
    provisioner: Provisioner = made
    return provisioner


# Imported when needed: the CRMs' libraries take long to load.


def _module(crm: CrmName) -> Any:
    if crm == "salesforce":
        from connectors.vendors.salesforce import writer as salesforce

        return salesforce
    from connectors.vendors.hubspot import writer as hubspot

    return hubspot


def _provision(crm: CrmName) -> Any:
    if crm == "salesforce":
        from connectors.vendors.salesforce import provision as salesforce

        return salesforce
    from connectors.vendors.hubspot import provision as hubspot

    return hubspot
