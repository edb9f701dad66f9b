-- A company is a customer: some carry the CRM's id, most a website. People without a company count
-- by the domain of their address.
SELECT
    id AS account_key,
    CASE ${crm_id_field} WHEN 'company_id' THEN text_or_null(company_id)
         ELSE text_or_null(custom_attributes ->> ${crm_id_field}) END AS account_id,
    text_or_null(website) AS domain,
    NULL AS email
FROM raw_intercom.companies
UNION ALL
SELECT DISTINCT '@' || contact_domain, NULL, NULL, 'somebody@' || contact_domain
FROM raw_intercom.conversations
WHERE company_id IS NULL AND contact_domain IS NOT NULL
