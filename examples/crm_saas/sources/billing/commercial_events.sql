-- A change to a lower price: the customer has already begun to leave a part of the product.
SELECT
    account_id                                                        AS account_key,
    'change-' || account_id || '-' || strftime(change_date, '%Y%m%d') AS event_id,
    'downgrade'                                                       AS kind,
    3                                                                 AS severity,
    change_date                                                       AS occurred_at
FROM raw_billing.plan_changes
WHERE mrr_after < mrr
