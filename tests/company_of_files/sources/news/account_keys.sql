-- A web address is all the news service knows; www. and the like are cut off by the matching.
SELECT DISTINCT
    company_domain AS account_key,
    company_domain AS domain
FROM raw_news.company_events
