-- Each line is a version, known from the second in which it was written.
SELECT
    customer                                     AS account_key,
    id                                           AS subscription_id,
    plan ->> '$.nickname'                        AS plan,
    money(mrr_cents, upper(currency))            AS mrr,
    upper(currency)                              AS currency,
    quantity                                     AS seats,
    from_epoch(CAST(start_date AS BIGINT))       AS started_at,
    from_epoch(CAST(canceled_at AS BIGINT))      AS cancelled_at,
    from_epoch(CAST(cancel_at AS BIGINT))        AS ends_at,
    -- A contract that runs month by month has no renewal to prepare for.
    CASE WHEN plan ->> '$.interval' = 'year'
         THEN local_day(from_epoch(CAST(current_period_end AS BIGINT))) END AS renews_on,
    status,
    from_epoch(CAST(updated AS BIGINT))          AS known_at
FROM raw_billing.subscriptions
