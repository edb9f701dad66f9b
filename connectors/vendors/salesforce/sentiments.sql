-- How the success manager sees it, 1 to 5.
SELECT
    account                                     AS account_key,
    id                                          AS sentiment_id,
    TRY_CAST(score AS DOUBLE)                   AS score,
    author,
    text                                        AS note,
    utc_text(given_at)                          AS given_at,
    TRY_CAST(expires_on AS DATE)                AS expires_on,
    false                                       AS deleted,
    utc_text(created_at)                        AS known_at
FROM raw_salesforce.notes
WHERE backfilled = 'true'
UNION ALL
SELECT
    account,
    id,
    TRY_CAST(score AS DOUBLE),
    author,
    text,
    utc_text(given_at),
    TRY_CAST(expires_on AS DATE),
    is_deleted = 'true',
    utc_text(known_at)
FROM raw_salesforce.notes
