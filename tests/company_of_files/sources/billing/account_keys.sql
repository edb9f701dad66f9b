-- One account may pay through two customer ids: both carry its CRM number, so both lead to it.
SELECT
    id AS account_key,
    metadata ->> '$.crm_account_no' AS account_id,
    email
FROM raw_billing.customers
