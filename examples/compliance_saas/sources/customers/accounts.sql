-- The list shows how a customer stands on the day of the export, and only signing and churn have a
-- date. So three versions: what could be known at signing (industry); no customer any more, from
-- the day of churn on; and plan and price, known only since we read the file. A replay of earlier
-- days therefore knows neither, which is the truth: nobody kept them.
-- A version at signing leaves known_at to the contract: the day itself in a first load, and the
-- load in later ones.
SELECT
    customer_id      AS account_id,
    industry,
    signup_date      AS started_on,
    NULL             AS plan,
    NULL             AS arr,
    NULL             AS currency,
    true             AS is_customer,
    NULL::TIMESTAMP  AS known_at
FROM raw_customers.customers
UNION ALL
SELECT customer_id, industry, signup_date, NULL, NULL, NULL, false,
    local_day_end(CAST(churn_date AS DATE))
FROM raw_customers.customers
WHERE churn_date IS NOT NULL
UNION ALL
SELECT customer_id, industry, signup_date, plan_tier, 12 * CAST(mrr AS DOUBLE), 'USD',
    churn_date IS NULL, _loaded_at
FROM raw_customers.customers
