-- There is no sales system: a change to a higher price is an expansion, won the day it was made.
SELECT
    account_id                                      AS account_key,
    'change-' || account_id || '-' || strftime(change_date, '%Y%m%d') AS opportunity_id,
    'expansion'                                     AS kind,
    12 * (mrr_after - mrr)                          AS amount,
    'USD'                                           AS currency,
    change_date                                     AS created_at,
    change_date                                     AS closed_at,
    true                                            AS won
FROM raw_billing.plan_changes
WHERE mrr_after > mrr
