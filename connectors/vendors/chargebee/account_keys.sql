-- The CRM's number where the customer has it; else the e-mail address tells the domain.
SELECT
    id                    AS account_key,
    text_or_null(crm_id)  AS account_id,
    text_or_null(email)   AS email
FROM raw_chargebee.customers
-- What a deleted customer once told stays true for what it left behind.
WHERE deleted <> 'true'
