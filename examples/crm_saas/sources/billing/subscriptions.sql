-- One subscription an account, a version for every day on which something about it was said. Of
-- several on one day the later rank speaks last: the new term, the bill of the month that ended,
-- the change of plan, the end. A term gives the base price, bills and changes the price with
-- add-ons; what a row does not say is carried over from the one before it.
-- billing_monthly.next_renewal is left out: the term says the same, and earlier.
WITH said AS (
    SELECT account_id, start_date AS said_on, 1 AS rank, plan, base_mrr AS mrr,
        seat_limit AS seats, renewal_date AS renews_on, NULL AS cancelled_on
    FROM raw_billing.contracts
    UNION ALL
    SELECT account_id, month_end, 2, NULL, mrr, NULL, NULL, NULL FROM raw_billing.billing_monthly
    UNION ALL
    SELECT account_id, change_date, 3, NULL, mrr_after, NULL, NULL, NULL
    FROM raw_billing.plan_changes
    UNION ALL
    SELECT account_id, churn_date, 4, NULL, NULL, NULL, NULL, churn_date
    FROM raw_billing.churn_events
)
SELECT
    account_id                                AS account_key,
    'contract-' || account_id                 AS subscription_id,
    last_value(plan IGNORE NULLS) OVER so_far AS plan,
    last_value(mrr IGNORE NULLS) OVER so_far  AS mrr,
    'USD'                                     AS currency,
    last_value(seats IGNORE NULLS) OVER so_far     AS seats,
    account.start_date                             AS started_at,
    cancelled_on                                   AS cancelled_at,
    cancelled_on                                   AS ends_at,
    last_value(renews_on IGNORE NULLS) OVER so_far AS renews_on,
    local_day_end(CAST(said_on AS DATE))           AS known_at
FROM said
JOIN raw_billing.accounts AS account USING (account_id)
WINDOW so_far AS (PARTITION BY account_id ORDER BY said_on, rank)
QUALIFY row_number() OVER (PARTITION BY account_id, said_on ORDER BY rank DESC) = 1
