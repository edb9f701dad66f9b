-- What really happened, on its day. A term that begins the day another ended is a renewal.
SELECT
    churn.account_id AS account_key,
    'churned'        AS kind,
    churn.churn_date AS at,
    -coalesce(arg_max(bill.mrr, bill.month_end), 0) AS mrr_delta,
    'USD'            AS currency
FROM raw_billing.churn_events AS churn
LEFT JOIN raw_billing.billing_monthly AS bill
    ON bill.account_id = churn.account_id AND bill.month_end <= churn.churn_date
GROUP BY ALL
UNION ALL
SELECT
    account_id,
    CASE WHEN mrr_after > mrr THEN 'expanded' ELSE 'contracted' END,
    change_date,
    mrr_after - mrr,
    'USD'
FROM raw_billing.plan_changes
WHERE mrr_after <> mrr
UNION ALL
SELECT term.account_id, 'renewed', term.start_date, NULL, NULL
FROM raw_billing.contracts AS term
JOIN raw_billing.contracts AS former
    ON former.account_id = term.account_id AND former.renewal_date = term.start_date
