-- An organization is a customer: some carry the CRM's number, all carry a domain.
SELECT
    id           AS account_key,
    external_id  AS account_id,
    domain_names AS domain
FROM raw_helpdesk.organizations
