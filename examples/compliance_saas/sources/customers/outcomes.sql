-- What really happened, on its day. By how much an upgrade raised the price nobody wrote down:
-- mrr is the price of the day of the export, so no delta is given.
SELECT customer_id AS account_key, 'churned' AS kind, churn_date AS at
FROM raw_customers.customers
WHERE churn_date IS NOT NULL
UNION ALL
SELECT customer_id, 'expanded', upgrade_date
FROM raw_customers.customers
WHERE upgrade_date IS NOT NULL
