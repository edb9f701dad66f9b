-- The risk that somebody set by hand on the account, from the reading on that first saw it so. The
-- record does not say who did it: the success manager answers for it.
WITH seen AS (
    SELECT
        id, owner,
        utc_text(known_at) AS seen_at,
        CASE WHEN is_deleted IS DISTINCT FROM 'true' THEN TRY_CAST(override_score AS DOUBLE) END
            AS value,
        text_or_null(override_reason) AS reason,
        TRY_CAST(override_until AS DATE) AS expires_on
    FROM raw_salesforce.accounts
), changes AS (
    SELECT *, lag(value) OVER (PARTITION BY id ORDER BY seen_at) AS former
    FROM seen
    QUALIFY row(value, reason, expires_on) IS DISTINCT FROM
        lag(row(value, reason, expires_on)) OVER (PARTITION BY id ORDER BY seen_at)
)
SELECT
    changes.id                              AS account_key,
    changes.id                              AS override_id,
    'risk'                                  AS score,
    coalesce(value, former)                 AS value,
    reason,
    coalesce(users.name, owner)             AS author,
    seen_at                                 AS given_at,
    expires_on,
    value IS NULL                           AS deleted,
    seen_at                                 AS known_at
FROM changes
LEFT JOIN raw_salesforce.users AS users ON users.id = owner
WHERE coalesce(value, former) IS NOT NULL
