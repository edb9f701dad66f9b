"""The gate: whether a plan is so unusual that a person has to approve it first."""

from dataclasses import dataclass

from connectors.crm.settings import Gate


@dataclass(frozen=True)
class Measured:
    """What the gate looks at.

    Attributes:
        accounts: How many accounts the plan is about, unchanged ones too.
        known: Of how many of them the CRM shows a risk band already.
        band_changes: How many of the known change to another band, unknown not counted.
        newly_unknown: How many of the known become unknown.
        held: How many accounts are held because a source is not delivering.
        tasks: How many tasks are to be opened.
        foreign_fields: Planned fields that are not ours to write. There should be none.
    """

    accounts: int
    known: int
    band_changes: int
    newly_unknown: int
    held: int
    tasks: int
    foreign_fields: tuple[str, ...] = ()


def judge(measured: Measured, gate: Gate, *, band_change_share: float) -> tuple[str, ...]:
    """Why a plan is held; nothing where it may go.

    Shares are of the accounts that they can concern: 11 of 100 known accounts that change band are
    more than a `band_change_share` of 0.10, and one of 4 too; so small numbers are judged as well,
    but a single account never holds a plan.

    >>> plenty = Measured(
    ...     accounts=100, known=100, band_changes=11, newly_unknown=0, held=0, tasks=3
    ... )
    >>> judge(plenty, Gate(), band_change_share=0.10)
    ('11 of 100 accounts (11 %) change their risk band; 10 % may',)
    """
    reasons = []
    if measured.foreign_fields:
        names = ", ".join(sorted(measured.foreign_fields))
        reasons.append(f"fields that are not ours would be written: {names}")
    for count, of, limit, what in (
        (measured.band_changes, measured.known, band_change_share, "change their risk band"),
        (measured.newly_unknown, measured.known, gate.unknown_share, "become unknown"),
        (measured.held, measured.accounts, gate.held_share, "are held for want of data"),
    ):
        if count > 1 and count > limit * of:
            reasons.append(
                f"{count:,} of {of:,} accounts ({100 * count / of:.0f} %) {what}; "
                f"{100 * limit:.0f} % may"
            )
    if measured.tasks > gate.most_tasks:
        reasons.append(f"{measured.tasks:,} tasks would be opened; {gate.most_tasks:,} may")
    return tuple(reasons)
