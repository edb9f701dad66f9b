"""What a build of `signals` did."""

from dataclasses import dataclass

from connectors.health import StreamHealth
from connectors.identity import IdentityReport
from contracts.company import Limits
from contracts.tables import TABLES


@dataclass(frozen=True)
class TableReport:
    """What a build did for one table of one source.

    `mode` is unchanged, incremental, full, waiting (a stream has no data yet), held (`reason`
    says why the newest loads wait) or failed. `rows_read` and `quarantined` count the loads of
    this build, and where nothing was new those of the load before.
    """

    source: str
    table: str
    mode: str
    loads: int
    rows_read: int
    new: int
    closed: int
    quarantined: int
    rows: int
    seconds: float
    reason: str | None = None

    @property
    def quarantine_share(self) -> float:
        """Share of the rows read that broke the contract."""
        return self.quarantined / self.rows_read if self.rows_read else 0.0

    def breaks(self, limits: Limits) -> bool:
        """Whether more rows broke the contract than may; one typed by people breaks nothing."""
        allowed = limits.quarantine_share_of(self.source, self.table)
        return self.quarantine_share > allowed and not TABLES[self.table].by_hand


@dataclass(frozen=True)
class BuildReport:
    """What a build did, table by table, and how far identity and sources can be trusted."""

    tables: tuple[TableReport, ...]
    identity: tuple[IdentityReport, ...]
    health: tuple[StreamHealth, ...]
    warnings: tuple[str, ...]
    rekeyed: int
    seconds: float

    @property
    def changed(self) -> bool:
        """True when any table of `signals` may differ from before."""
        return self.rekeyed > 0 or any(t.mode in ("incremental", "full") for t in self.tables)
