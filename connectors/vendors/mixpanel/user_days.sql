-- A person is the hash of Mixpanel's distinct id, which may be an e-mail address.
SELECT DISTINCT
    group_key         AS account_key,
    person            AS user_key,
    CAST(day AS DATE) AS day
FROM raw_mixpanel.events
WHERE person <> ''
  AND NOT list_contains(CAST(CAST(${level_events} AS JSON) AS VARCHAR[]), event)
  AND (${active_events} = '[]'
       OR list_contains(CAST(CAST(${active_events} AS JSON) AS VARCHAR[]), event))
