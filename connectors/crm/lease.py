"""The lease: one run at a time writes into the CRMs of a ledger.

It is a row with an end. Whoever takes, renews or gives it up does so in one statement that names
the row as it has to be, so two runs that come at once cannot both have it.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import sqlalchemy as sa

from connectors.crm.ledger_tables import leases, upsert
from contracts.errors import HeldError, LedgerError

NAME = "writing"

Transaction = Callable[[], AbstractContextManager[sa.Connection]]


class LeaseHeld(HeldError):
    """Another run holds the lease."""


class LeaseLost(HeldError):
    """The lease ran out, and another run may have taken it."""


class Lease:
    """The lease that this run holds; see `Ledger.lease`."""

    def __init__(
        self,
        transaction: Transaction,
        *,
        holder: str,
        now: Callable[[], dt.datetime],
        seconds: float,
    ) -> None:
        self._transaction, self._now = transaction, now
        self._length = dt.timedelta(seconds=seconds)
        self._token = uuid.uuid4().hex
        self.holder = holder
        self.ends_at = self._take()

    def _take(self) -> dt.datetime:
        now = self._now()
        row = {
            "name": NAME, "holder": self.holder, "token": self._token,
            "taken_at": now, "ends_at": now + self._length,
        }  # fmt: skip
        with self._transaction() as connection:
            upsert(connection, leases, [row], where=lambda new: leases.c.ends_at <= new.taken_at)
            held = connection.execute(sa.select(leases).where(leases.c.name == NAME)).one()
        if held.token != self._token:
            raise LeaseHeld(
                f"another run ({held.holder}) has been writing since {held.taken_at:%Y-%m-%d %H:%M}"
                " UTC",
                f"wait until it ends; if it died, its lease ends at {held.ends_at:%H:%M} UTC",
            )
        return now + self._length

    def renew(self) -> None:
        """Have the lease for its whole length again, from now on.

        Raises:
            LeaseLost: another run has taken it.
        """
        ends_at = self._now() + self._length
        mine = (leases.c.name == NAME) & (leases.c.token == self._token)
        with self._transaction() as connection:
            kept = connection.execute(
                sa.update(leases).where(mine).values(ends_at=ends_at)
            ).rowcount
        if not kept:
            raise _lost()
        self.ends_at = ends_at

    def check(self) -> None:
        """Make sure that the lease is still held.

        Raises:
            LeaseLost: it ran out, or another run has taken it.
        """
        with self._transaction() as connection:
            token = connection.execute(
                sa.select(leases.c.token).where(leases.c.name == NAME)
            ).scalar()
        if token != self._token or self._now() >= self.ends_at:
            raise _lost()

    def keep(self) -> None:
        """Before each call: check the lease, and renew it once a third of it is over.

        So two thirds are left at least, and no call may take as long: else what is sent now could
        arrive when another run is writing.

        Raises:
            LeaseLost: another run has taken it.
        """
        if self._now() >= self.ends_at - self._length * 2 / 3:
            self.renew()
        else:
            self.check()

    def give_up(self) -> None:
        """Let others write; nothing happens where the lease was lost."""
        mine = (leases.c.name == NAME) & (leases.c.token == self._token)
        with self._transaction() as connection:
            connection.execute(sa.delete(leases).where(mine))


@contextmanager
def held_lease(
    transaction: Transaction, *, holder: str, now: Callable[[], dt.datetime], seconds: float
) -> Iterator[Lease]:
    """The lease during the block.

    Raises:
        LeaseHeld: another run has it.
    """
    lease = Lease(transaction, holder=holder, now=now, seconds=seconds)
    try:
        yield lease
    finally:
        with suppress(LedgerError):  # then it runs out by itself
            lease.give_up()


def _lost() -> LeaseLost:
    return LeaseLost(
        "this run lost its lease: it was away for too long, and another may be writing",
        "let the other run end, then run again",
    )
