-- Every customer may write to the help desk under its own id: no ticket is zero tickets. Without this
-- file only those who wrote once, at any time, would be linked.
SELECT customer_id AS account_key, customer_id AS account_id
FROM raw_customers.customers
