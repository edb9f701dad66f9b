-- Risks that success managers set by hand. A row without a score takes the one before it back.
SELECT
    account_no                   AS account_key,
    account_no                   AS override_id,
    'risk'                       AS score,
    coalesce(score, lag(score) OVER (PARTITION BY account_no ORDER BY set_at)) AS value,
    reason,
    author,
    utc(set_at, 'Europe/Berlin') AS given_at,
    until                        AS expires_on,
    score IS NULL                AS deleted
FROM raw_crm.overrides
