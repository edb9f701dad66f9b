-- A person is PostHog's own identifier, a UUID that says nothing about who it is.
SELECT
    group_key         AS account_key,
    person            AS user_key,
    CAST(day AS DATE) AS day
FROM raw_posthog.user_days
