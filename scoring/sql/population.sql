-- Sums of fractions depend on their order in the last digits; twelve digits do not.
CREATE OR REPLACE TEMP MACRO tidy(x) AS CASE
    WHEN x = trunc(x) OR NOT isfinite(x) THEN x
    ELSE round(x, 11 - floor(log10(abs(x)))::INTEGER)
END;

-- Customers as of the day: the version of each account that was known then, ARR in one currency.
CREATE OR REPLACE TEMP TABLE rates AS
SELECT currency, arg_max(rate, (day, known_at, source, rate)) AS rate
FROM signals.exchange_rates
WHERE rate > 0 AND day <= {{ day }} AND known_at <= {{ instant }}
    AND (superseded_at IS NULL OR superseded_at > {{ instant }})
    AND currency <> {{ currency }}
GROUP BY currency
UNION ALL
SELECT {{ currency }}, 1.0;

CREATE OR REPLACE TEMP TABLE population AS
SELECT
    a.account_id, a.name, a.parent_id, a.owner, a.sales_owner,
    tidy((a.arr * r.rate)::DOUBLE) AS arr, a.employees, a.industry, a.region, a.plan, a.started_on, a.renews_on, a.desired_outcome
FROM signals.accounts AS a
LEFT JOIN rates AS r ON r.currency = coalesce(a.currency, {{ currency }})
WHERE a.known_at <= {{ instant }}
    AND (a.superseded_at IS NULL OR a.superseded_at > {{ instant }})
    AND a.deleted IS NOT TRUE
    AND a.is_customer IS NOT FALSE
    AND a.merged_into IS NULL
    AND a.started_on <= {{ day }}
QUALIFY row_number() OVER (PARTITION BY a.account_id ORDER BY a.known_at DESC, a.source) = 1;

-- An account is linked to a source by a key of its own (from the day on that the key was known,
-- where only rows reveal it), or because the source lists the accounts.
CREATE OR REPLACE TEMP TABLE linked_sources AS
SELECT DISTINCT account_id, source FROM signals.account_keys
WHERE account_id IS NOT NULL AND (known_at IS NULL OR known_at <= {{ instant }})
UNION
SELECT DISTINCT account_id, source FROM signals.accounts WHERE known_at <= {{ instant }};

-- Parents with everything below them, themselves included; a cycle ends where it began.
CREATE OR REPLACE TEMP TABLE families AS
WITH RECURSIVE below(ancestor_id, account_id) AS (
    SELECT account_id, account_id FROM population
    WHERE account_id IN (SELECT parent_id FROM population WHERE parent_id <> account_id)
    UNION
    SELECT b.ancestor_id, p.account_id
    FROM below AS b JOIN population AS p ON p.parent_id = b.account_id
)
SELECT ancestor_id, account_id FROM below;

CREATE OR REPLACE TEMP TABLE measured (
    account_id VARCHAR, metric VARCHAR, value DOUBLE, previous DOUBLE, held DOUBLE, state VARCHAR,
    reason VARCHAR
);
