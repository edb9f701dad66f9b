-- Two things that the CRM knows without calling them events: who left, and who names a rival.
SELECT
    account                                     AS account_key,
    'left-' || id                               AS event_id,
    CASE lower(trim(role)) WHEN 'champion' THEN 'champion_left' ELSE 'sponsor_changed' END AS kind,
    CASE lower(trim(role)) WHEN 'champion' THEN 5 ELSE 3 END AS severity,
    local_day_end(TRY_CAST(left_on AS DATE) - 1) AS occurred_at,
    is_deleted = 'true'                         AS deleted,
    utc_text(known_at)                          AS known_at
FROM raw_salesforce.contacts
WHERE left_on IS NOT NULL AND lower(trim(role)) IN ('champion', 'sponsor')
UNION ALL
SELECT
    account,
    'rival-' || id,
    'competitor',
    3,
    utc_text(given_at),
    is_deleted = 'true',
    utc_text(known_at)
FROM raw_salesforce.notes
WHERE names_competitor = 'true'
