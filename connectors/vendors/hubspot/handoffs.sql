-- What sales noted on a deal for those who take over, at each moment at which one of the facts
-- changed. A portal begins to keep handoffs at some time: no deal from before the first one with
-- any of these facts is told, because what nobody could fill is not empty.
WITH deal AS (
    SELECT
        *,
        utc_text(created_at) AS created,
        CASE WHEN (properties ->> 'hs_is_closed_won') = 'true' THEN coalesce(
            from_epoch_ms(TRY_CAST(properties ->> ${deal_closes} AS BIGINT)),
            utc_text(properties ->> ${deal_closes})
        ) END AS won_at
    FROM raw_hubspot.deals
    WHERE (companies ->> '$[0]') IS NOT NULL
),
told AS (
    SELECT id, property, change.value AS value, greatest(utc_text(change.timestamp), created) AS told_at
    FROM (
        SELECT
            id, created, property,
            unnest(from_json(history -> property, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]')) AS change
        FROM (
            SELECT id, created, history, unnest([
                ${deal_promised_outcome}, ${deal_success_criteria}, ${deal_champion},
                ${deal_decision_maker}, ${deal_stakeholders_met}, ${deal_sentiment}, ${deal_kickoff_on}
            ]) AS property
            FROM deal
        )
    )
),
entry AS (
    SELECT id, property, value, told_at FROM told
    UNION ALL
    SELECT id, NULL, NULL, created FROM deal
    UNION ALL
    SELECT id, NULL, NULL, utc_text(archived_at) FROM deal WHERE archived_at IS NOT NULL
),
moment AS (
    -- A property that was cleared has an empty value; an id that is none was not kept.
    SELECT
        id,
        told_at,
        max(coalesce(value, '')) FILTER (property = ${deal_promised_outcome}) AS promised_outcome,
        max(coalesce(value, '')) FILTER (property = ${deal_success_criteria}) AS success_criteria,
        max(coalesce(value, '')) FILTER (property = ${deal_champion})         AS champion,
        max(coalesce(value, '')) FILTER (property = ${deal_decision_maker})   AS decision_maker,
        max(coalesce(value, '')) FILTER (property = ${deal_stakeholders_met}) AS stakeholders_met,
        max(coalesce(value, '')) FILTER (property = ${deal_sentiment})        AS sentiment,
        max(coalesce(value, '')) FILTER (property = ${deal_kickoff_on})       AS kickoff_on
    FROM entry
    GROUP BY id, told_at
),
version AS (
    SELECT
        id,
        told_at,
        text_or_null(last_value(promised_outcome IGNORE NULLS) OVER sofar) AS promised_outcome,
        text_or_null(last_value(success_criteria IGNORE NULLS) OVER sofar) AS success_criteria,
        text_or_null(last_value(champion IGNORE NULLS) OVER sofar)         AS champion,
        text_or_null(last_value(decision_maker IGNORE NULLS) OVER sofar)   AS decision_maker,
        text_or_null(last_value(stakeholders_met IGNORE NULLS) OVER sofar) AS stakeholders_met,
        text_or_null(last_value(sentiment IGNORE NULLS) OVER sofar)        AS sentiment,
        text_or_null(last_value(kickoff_on IGNORE NULLS) OVER sofar)       AS kickoff_on
    FROM moment
    WINDOW sofar AS (PARTITION BY id ORDER BY told_at)
)
SELECT
    companies ->> '$[0]'                                AS account_key,
    deal.id                                             AS opportunity_id,
    ${deal_kinds} ->> (properties ->> ${deal_type})     AS kind,
    promised_outcome,
    success_criteria,
    champion,
    decision_maker,
    TRY_CAST(TRY_CAST(stakeholders_met AS DOUBLE) AS BIGINT) AS stakeholders_met,
    -- What is none of the five says nothing, and takes nothing along.
    CASE WHEN TRY_CAST(sentiment AS DOUBLE) BETWEEN 1 AND 5 THEN TRY_CAST(sentiment AS DOUBLE) END
                                        AS sentiment,
    coalesce(
        CAST(from_epoch_ms(TRY_CAST(kickoff_on AS BIGINT)) AS DATE),
        TRY_CAST(left(kickoff_on, 10) AS DATE)
    )                                                   AS kickoff_on,
    created                                             AS created_at,
    won_at,
    archived = 'true' AND archived_at IS NOT NULL AND told_at >= utc_text(archived_at) AS deleted,
    told_at                                             AS known_at
FROM deal
JOIN version ON version.id = deal.id
WHERE created >= (
    SELECT min(created) FROM deal WHERE id IN (SELECT id FROM told WHERE text_or_null(value) IS NOT NULL)
)
