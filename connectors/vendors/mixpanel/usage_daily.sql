-- Counted from single events. An event that reports a level (gigabytes stored) is no action: it has
-- a value, the last of the day, but no count and no users.
SELECT
    group_key         AS account_key,
    CAST(day AS DATE) AS day,
    event,
    CASE WHEN list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
         THEN 0 ELSE count(*) END AS count,
    CASE WHEN list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
         THEN arg_max(TRY_CAST(value AS DOUBLE), time)
         ELSE sum(TRY_CAST(value AS DOUBLE)) END AS value,
    CASE WHEN list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
         THEN 0 ELSE count(DISTINCT nullif(person, '')) END AS users
FROM raw_mixpanel.events
WHERE ${events} = '[]' OR list_contains(CAST(CAST(${events} AS JSON) AS VARCHAR[]), event)
GROUP BY group_key, day, event
