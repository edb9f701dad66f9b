-- Sales works with the ids of the customer list, so a customer without an opportunity has none.
SELECT customer_id AS account_key, customer_id AS account_id
FROM raw_customers.customers
