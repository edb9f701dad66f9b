-- Two things that a CRM knows without calling them events: who left, and that a rival was named.
-- A departure becomes known when somebody notes it.
SELECT
    companies ->> '$[0]' AS account_key,
    'left-' || id        AS event_id,
    CASE WHEN contains(role, 'CHAMPION') THEN 'champion_left' ELSE 'sponsor_changed' END AS kind,
    CASE WHEN contains(role, 'CHAMPION') THEN 5 ELSE 3 END AS severity,
    coalesce(
        from_epoch_ms(TRY_CAST(left_on AS BIGINT)),
        local_day_end(TRY_CAST(left(left_on, 10) AS DATE) - 1)
    ) AS occurred_at,
    coalesce(archived = 'true', false) AS deleted,
    utc_text(coalesce(
        json_extract_string(history -> ${contact_left}, '$[0].timestamp'), modified_at
    )) AS known_at
FROM (
    SELECT
        *,
        upper(properties ->> ${contact_role})        AS role,
        text_or_null(properties ->> ${contact_left}) AS left_on
    FROM raw_hubspot.contacts
)
WHERE left_on IS NOT NULL
    AND (companies ->> '$[0]') IS NOT NULL
    AND (contains(role, 'CHAMPION') OR contains(role, 'EXECUTIVE_SPONSOR'))
UNION ALL
SELECT
    id,
    'rival-' || id || '-' || epoch_ms(told_at),
    'competitor',
    3,
    coalesce(from_epoch_ms(TRY_CAST(mention.value AS BIGINT)), utc_text(mention.value)),
    coalesce(archived = 'true', false),
    told_at
FROM (
    SELECT *, utc_text(mention.timestamp) AS told_at
    FROM (
        SELECT
            *,
            unnest(from_json(history -> ${company_rival_at}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]')) AS mention
        FROM raw_hubspot.companies
    )
)
WHERE text_or_null(mention.value) IS NOT NULL
    AND told_at >= coalesce(utc_text(history ->> '$.hs_merged_object_ids[0].timestamp'), told_at)
