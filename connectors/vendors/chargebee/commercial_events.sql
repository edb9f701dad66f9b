-- A cancellation that waits for its end is a notice: the last chance to talk. Taken back, it leaves no
-- trace in the subscription; so each later change of one without a cancellation says: there is none.
SELECT
    customer_id      AS account_key,
    'notice-' || id  AS event_id,
    'notice'         AS kind,
    5                AS severity,
    from_epoch(CAST(coalesce(cancel_schedule_created_at, changed_at) AS BIGINT)) AS occurred_at,
    cancel_schedule_created_at IS NULL OR deleted = 'true'                       AS deleted,
    CASE WHEN is_first = 'false' THEN from_epoch(CAST(changed_at AS BIGINT)) END AS known_at
FROM raw_chargebee.subscriptions
WHERE
    CASE WHEN cancel_schedule_created_at IS NULL
         THEN is_first = 'false' AND status IN ('active', 'in_trial')
         ELSE CAST(cancelled_at AS BIGINT) > CAST(cancel_schedule_created_at AS BIGINT) END
