-- The event store already counts by day (UTC), so its columns only need other names.
SELECT
    workspace_id AS account_key,
    date         AS day,
    event_name   AS event,
    n            AS count,
    qty          AS value,
    actors       AS users
FROM raw_product.usage
