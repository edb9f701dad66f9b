-- A company is a customer: some carry the CRM's id, most carry their domains, one row each.
SELECT
    id AS account_key,
    text_or_null(custom_fields ->> ('$.' || ${crm_id_field})) AS account_id,
    unnest(CASE WHEN coalesce(domains, '[]') = '[]' THEN [NULL::VARCHAR]
                ELSE CAST(domains AS JSON)::VARCHAR[] END) AS domain
FROM raw_freshdesk.companies
