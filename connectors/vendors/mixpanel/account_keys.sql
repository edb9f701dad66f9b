-- Whose workspace it is: the CRM's number where somebody typed it in, and the sign-up domain.
SELECT
    key                   AS account_key,
    text_or_null(crm_id)  AS account_id,
    text_or_null(domain)  AS domain
FROM raw_mixpanel.groups
