-- A cancellation that still waits for its end is a notice: the last chance to talk.
SELECT
    customer                                AS account_key,
    'notice-' || id                         AS event_id,
    'notice'                                AS kind,
    5                                       AS severity,
    from_epoch(CAST(canceled_at AS BIGINT)) AS occurred_at
FROM raw_billing.subscriptions
WHERE canceled_at IS NOT NULL AND status = 'active'
