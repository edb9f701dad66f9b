-- A cancellation that still waits for its end is a notice: the last chance to talk. One that was
-- taken back is told by an event alone, which has the former date among the previous values.
SELECT
    customer         AS account_key,
    'notice-' || id  AS event_id,
    'notice'         AS kind,
    5                AS severity,
    from_epoch(CAST(coalesce(canceled_at, previously ->> '$.canceled_at') AS BIGINT))
                     AS occurred_at,
    canceled_at IS NULL AS deleted,
    -- The framework's usual rule for a first list: when it happened.
    CASE WHEN is_first = 'false' THEN from_epoch(CAST(as_of AS BIGINT)) END AS known_at
FROM raw_stripe.subscriptions
WHERE
    CASE WHEN canceled_at IS NULL THEN previously ->> '$.canceled_at' IS NOT NULL
         ELSE ended_at IS NULL OR CAST(ended_at AS BIGINT) > CAST(canceled_at AS BIGINT) END
