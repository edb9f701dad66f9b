-- Every account has the product under its own id, used or not: no events are zero use.
SELECT account_id AS account_key, account_id
FROM raw_billing.accounts
