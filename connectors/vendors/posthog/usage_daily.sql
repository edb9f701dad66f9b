-- A row of PostHog's own counting. An event that reports a level (gigabytes stored) is no action:
-- it has a value, the last of the day, but no count and no users.
SELECT
    group_key AS account_key,
    CAST(day AS DATE) AS day,
    event,
    CASE WHEN list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
         THEN 0 ELSE CAST(event_count AS BIGINT) END AS count,
    CASE WHEN list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
         THEN CAST(value_last AS DOUBLE) ELSE CAST(value_sum AS DOUBLE) END AS value,
    CASE WHEN list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
         THEN 0 ELSE CAST(users AS BIGINT) END AS users
FROM raw_posthog.usage
