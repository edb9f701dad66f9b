-- Mergers, acquisitions, layoffs, funding.
SELECT
    company_domain AS account_key,
    event_id,
    kind,
    severity,
    published_at   AS occurred_at
FROM raw_news.company_events
