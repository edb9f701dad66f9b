-- Every customer has a workspace under its own id, used or not: no events are zero use.
SELECT customer_id AS account_key, customer_id AS account_id
FROM raw_customers.customers
