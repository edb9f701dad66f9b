-- An organization is a customer: some carry the CRM's id, most carry their domains, one row each.
SELECT
    id AS account_key,
    CASE WHEN ${crm_id_field} = 'external_id' THEN text_or_null(external_id)
         ELSE text_or_null(organization_fields ->> ('$.' || ${crm_id_field}))
    END AS account_id,
    unnest(CASE WHEN coalesce(domain_names, '[]') = '[]' THEN [NULL::VARCHAR]
                ELSE CAST(domain_names AS JSON)::VARCHAR[] END) AS domain
FROM raw_zendesk.organizations
