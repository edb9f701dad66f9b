-- The steps of the planned journey. A first reading takes them as planned from the beginning.
SELECT
    account                                     AS account_key,
    id                                          AS milestone_id,
    name,
    utc_text(planned_at)                        AS planned_at,
    TRY_CAST(due_on AS DATE)                    AS due_on,
    TRY_CAST(reached_on AS DATE)                AS reached_on,
    false                                       AS deleted,
    utc_text(created_at)                        AS known_at
FROM raw_salesforce.milestones
WHERE backfilled = 'true'
UNION ALL
SELECT
    account,
    id,
    name,
    utc_text(planned_at),
    TRY_CAST(due_on AS DATE),
    TRY_CAST(reached_on AS DATE),
    is_deleted = 'true',
    utc_text(known_at)
FROM raw_salesforce.milestones
