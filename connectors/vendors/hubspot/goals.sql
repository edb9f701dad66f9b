-- Every measurement of a goal, from the history of the property that dates it. What is older than
-- a merge may belong to the other company.
SELECT
    id                                            AS account_key,
    concat_ws('-', coalesce(text_or_null(properties ->> ${company_number}), id), due) AS goal_id,
    coalesce(name, 'Goal')                        AS name,
    target,
    progress,
    coalesce(
        CAST(from_epoch_ms(TRY_CAST(due AS BIGINT)) AS DATE), TRY_CAST(left(due, 10) AS DATE)
    )                                             AS due_on,
    coalesce(from_epoch_ms(TRY_CAST(measurement.value AS BIGINT)), utc_text(measurement.value)) AS measured_at,
    coalesce(archived = 'true', false)            AS deleted,
    told_at                                            AS known_at
FROM (
    SELECT
        *,
        text_or_null([c.value FOR c IN from_json(history -> ${company_goal}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]') IF utc_text(c.timestamp) <= told_at][1]) AS name,
        text_or_null([c.value FOR c IN from_json(history -> ${company_goal_target}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]') IF utc_text(c.timestamp) <= told_at][1]) AS target,
        text_or_null([c.value FOR c IN from_json(history -> ${company_goal_progress}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]') IF utc_text(c.timestamp) <= told_at][1]) AS progress,
        text_or_null([c.value FOR c IN from_json(history -> ${company_goal_due}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]') IF utc_text(c.timestamp) <= told_at][1]) AS due
    FROM (
        SELECT *, utc_text(measurement.timestamp) AS told_at
        FROM (
            SELECT
                *,
                unnest(from_json(history -> ${company_goal_at}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]')) AS measurement
            FROM raw_hubspot.companies
        )
    )
)
WHERE text_or_null(measurement.value) IS NOT NULL
    AND told_at >= coalesce(utc_text(history ->> '$.hs_merged_object_ids[0].timestamp'), told_at)
