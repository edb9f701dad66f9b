-- A web address is all the feed knows; www. and the like are cut off by the matching.
SELECT DISTINCT
    regexp_replace(lower(organization_website_url), '^https?://|/.*$', '', 'g') AS account_key,
    regexp_replace(lower(organization_website_url), '^https?://|/.*$', '', 'g') AS domain
FROM (
    SELECT organization_website_url FROM raw_company_news.acquisitions
    UNION ALL
    SELECT organization_website_url FROM raw_company_news.funding_rounds
    UNION ALL
    SELECT organization_website_url FROM raw_company_news.layoffs
)
WHERE organization_website_url IS NOT NULL
