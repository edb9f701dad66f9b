-- Deals of a company, in every version that the history of stage, amount and closing date tells.
-- HubSpot has one closing date: the expected one while a deal is open, then the real one.
SELECT
    companies ->> '$[0]'                                AS account_key,
    id                                                  AS opportunity_id,
    ${deal_kinds} ->> (properties ->> ${deal_type})     AS kind,
    stage,
    text_or_null(amount)                                AS amount,
    upper(coalesce(text_or_null(properties ->> ${deal_currency}), text_or_null(${portal_currency}))) AS currency,
    utc_text(created_at)                                AS created_at,
    local_day(closes)                                   AS closes_on,
    CASE WHEN is_closed THEN closes END                 AS closed_at,
    CASE WHEN is_closed THEN (properties ->> 'hs_is_closed_won') = 'true' END AS won,
    archived = 'true' AND archived_at IS NOT NULL AND told_at >= utc_text(archived_at) AS deleted,
    told_at                                                  AS known_at
FROM (
    SELECT
        *,
        -- HubSpot tells whether today's stage is an end: so it was, for as long as it is today's.
        (properties ->> 'hs_is_closed') = 'true' AND stage = (properties ->> ${deal_stage}) AS is_closed,
        coalesce(from_epoch_ms(TRY_CAST(closes_text AS BIGINT)), utc_text(closes_text)) AS closes
    FROM (
        SELECT
            *,
            CASE WHEN len(stages) > 0 THEN [c.value FOR c IN stages IF utc_text(c.timestamp) <= told_at][1]
                 ELSE properties ->> ${deal_stage} END  AS stage,
            CASE WHEN len(amounts) > 0 THEN [c.value FOR c IN amounts IF utc_text(c.timestamp) <= told_at][1]
                 ELSE properties ->> ${deal_amount} END AS amount,
            CASE WHEN len(dates) > 0 THEN [c.value FOR c IN dates IF utc_text(c.timestamp) <= told_at][1]
                 ELSE properties ->> ${deal_closes} END AS closes_text
        FROM (
            SELECT
                *,
                unnest(list_distinct(
                    [utc_text(created_at), utc_text(archived_at)]
                    || [utc_text(c.timestamp) FOR c IN stages]
                    || [utc_text(c.timestamp) FOR c IN amounts]
                    || [utc_text(c.timestamp) FOR c IN dates]
                )) AS told_at
            FROM (
                SELECT
                    *,
                    coalesce(from_json(history -> ${deal_stage},
                        '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []) AS stages,
                    coalesce(from_json(history -> ${deal_amount},
                        '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []) AS amounts,
                    coalesce(from_json(history -> ${deal_closes},
                        '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []) AS dates
                FROM raw_hubspot.deals
            )
        )
    )
)
WHERE (companies ->> '$[0]') IS NOT NULL
