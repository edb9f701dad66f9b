-- Contacts with a role at a company: since when, and until when as soon as somebody noted it.
SELECT
    companies ->> '$[0]' AS account_key,
    id                   AS contact_id,
    CASE
        WHEN contains(role, 'CHAMPION') THEN 'champion'
        WHEN contains(role, 'EXECUTIVE_SPONSOR') THEN 'sponsor'
        WHEN contains(role, 'DECISION_MAKER') OR contains(role, 'BUDGET_HOLDER') THEN 'decision_maker'
        WHEN contains(role, 'END_USER') THEN 'user'
        ELSE lower(string_split(role, ';')[1])
    END AS role,
    coalesce(
        from_epoch_ms(TRY_CAST(since AS BIGINT)),
        local_day_end(TRY_CAST(left(since, 10) AS DATE) - 1),
        utc_text(created_at)
    ) AS joined_at,
    coalesce(
        from_epoch_ms(TRY_CAST(left_on AS BIGINT)),
        local_day_end(TRY_CAST(left(left_on, 10) AS DATE) - 1)
    ) AS left_at,
    archived = 'true' AND archived_at IS NOT NULL AND told_at >= utc_text(archived_at) AS deleted,
    told_at AS known_at
FROM (
    SELECT
        *,
        upper(coalesce(
            [c.value FOR c IN roles IF utc_text(c.timestamp) <= told_at][1],
            properties ->> ${contact_role}
        )) AS role,
        CASE WHEN len(departures) > 0
             THEN text_or_null([c.value FOR c IN departures IF utc_text(c.timestamp) <= told_at][1])
             ELSE text_or_null(properties ->> ${contact_left})
        END AS left_on
    FROM (
        SELECT
            *,
            text_or_null(properties ->> ${contact_since}) AS since,
            unnest(list_distinct(
                [utc_text(created_at), utc_text(archived_at)]
                || [utc_text(c.timestamp) FOR c IN roles]
                || [utc_text(c.timestamp) FOR c IN departures]
            )) AS told_at
        FROM (
            SELECT
                *,
                coalesce(from_json(history -> ${contact_role},
                    '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []) AS roles,
                coalesce(from_json(history -> ${contact_left},
                    '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []) AS departures
            FROM raw_hubspot.contacts
        )
    )
)
WHERE (companies ->> '$[0]') IS NOT NULL AND text_or_null(role) IS NOT NULL
