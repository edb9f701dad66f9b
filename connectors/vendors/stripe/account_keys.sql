-- The CRM's number where the customer's metadata has it; else the e-mail address tells the domain.
SELECT
    id                                         AS account_key,
    text_or_null(metadata ->> ${crm_id_field}) AS account_id,
    text_or_null(email)                        AS email
FROM raw_stripe.customers
-- What a deleted customer once told stays true for what it left behind.
WHERE deleted <> 'true'
