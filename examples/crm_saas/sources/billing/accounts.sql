-- A version for every contract term, known when the day on which it starts is over: plan, price and
-- renewal date of a later term stay unknown until then. From the day of churn on the account is no
-- customer. ARR is that of the contract; add-ons are in the metric mrr, from the bills.
-- Not mapped: channel and company_birth_date, for which the canonical table has no column.
SELECT
    term.account_id,
    12 * term.base_mrr                           AS arr,
    'USD'                                        AS currency,
    account.state                                AS region,
    split_part(term.plan, '_', 1)                AS plan,
    account.start_date                           AS started_on,
    term.renewal_date                            AS renews_on,
    true                                         AS is_customer,
    local_day_end(CAST(term.start_date AS DATE)) AS known_at
FROM raw_billing.contracts AS term
JOIN raw_billing.accounts AS account USING (account_id)
UNION ALL
SELECT
    churn.account_id,
    NULL,
    NULL,
    account.state,
    NULL,
    account.start_date,
    NULL,
    false,
    local_day_end(CAST(churn.churn_date AS DATE))
FROM raw_billing.churn_events AS churn
JOIN raw_billing.accounts AS account USING (account_id)
