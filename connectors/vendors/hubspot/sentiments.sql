-- Every assessment, from the history of the property that dates it; where there is no such
-- property, from the history of the score. Without an author it is the success manager's.
WITH assessment AS (
    SELECT
        id,
        archived,
        utc_text(change.timestamp) AS told_at,
        coalesce(from_epoch_ms(TRY_CAST(change.value AS BIGINT)), utc_text(change.value)) AS given_at,
        history,
        coalesce(from_json(history -> ${company_sentiment}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []) AS scores,
        coalesce(from_json(history -> ${company_sentiment_by}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), [])
            || coalesce(from_json(history -> ${company_success_manager}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []) AS authors
    FROM (
        SELECT
            *,
            unnest(CASE
                WHEN json_array_length(history -> ${company_sentiment_at}) > 0
                THEN from_json(history -> ${company_sentiment_at}, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]')
                ELSE [
                    {'value': c.timestamp, 'timestamp': c.timestamp}
                    FOR c IN coalesce(from_json(history -> ${company_sentiment}, '[{"timestamp":"VARCHAR"}]'), [])
                ]
            END) AS change
        FROM raw_hubspot.companies
    )
    WHERE text_or_null(change.value) IS NOT NULL
)
SELECT
    given.id                                                                 AS account_key,
    given.id || '-' || epoch_ms(told_at)                                                AS sentiment_id,
    score,
    coalesce(text_or_null(concat_ws(' ', owner.first_name, owner.last_name)), author_id) AS author,
    given_at,
    local_day(given_at) + CAST(${sentiment_valid_days} AS INTEGER)           AS expires_on,
    deleted,
    told_at                                                                       AS known_at
FROM (
    SELECT
        *,
        coalesce(archived = 'true', false) AS deleted,
        text_or_null([c.value FOR c IN scores IF utc_text(c.timestamp) <= told_at][1]) AS score,
        text_or_null([c.value FOR c IN authors IF utc_text(c.timestamp) <= told_at][1]) AS author_id
    FROM assessment
    WHERE told_at >= coalesce(utc_text(history ->> '$.hs_merged_object_ids[0].timestamp'), told_at)
) AS given
LEFT JOIN raw_hubspot.owners AS owner ON owner.id = author_id
WHERE score IS NOT NULL
