-- A company's id, and the ids that it had before a merge, which old records may still name.
SELECT
    id                                                   AS account_key,
    text_or_null(properties ->> ${company_number})       AS account_id,
    text_or_null(properties ->> ${company_domain})       AS domain
FROM raw_hubspot.companies
UNION ALL
SELECT former_id, number, domain
FROM (
    SELECT
        text_or_null(properties ->> ${company_number})   AS number,
        text_or_null(properties ->> ${company_domain})   AS domain,
        unnest(string_split(text_or_null(properties ->> 'hs_merged_object_ids'), ';')) AS former_id
    FROM raw_hubspot.companies
)
WHERE former_id NOT IN (SELECT id FROM raw_hubspot.companies)
