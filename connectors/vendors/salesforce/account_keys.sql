-- Everything else in Salesforce names its account by the record's id.
SELECT
    id                                          AS account_key,
    coalesce(text_or_null(account_id), id)      AS account_id,
    utc_text(created_at)                        AS known_at
FROM raw_salesforce.accounts
