-- The risk team rates the customers of the list.
SELECT customer_id AS account_key, customer_id AS account_id
FROM raw_customers.customers
