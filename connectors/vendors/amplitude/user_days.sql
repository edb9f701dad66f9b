-- A person is Amplitude's own number, which says nothing about who it is.
SELECT DISTINCT
    group_key         AS account_key,
    person            AS user_key,
    CAST(day AS DATE) AS day
FROM raw_amplitude.events
WHERE person <> ''
  AND NOT list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
  AND (${active_events} = '[]'
       OR list_contains(CAST(CAST(${active_events} AS JSON) AS VARCHAR[]), event))
