-- Outreach is logged under the ids of the customer list: who is not in the log was not asked.
SELECT customer_id AS account_key, customer_id AS account_id
FROM raw_customers.customers
