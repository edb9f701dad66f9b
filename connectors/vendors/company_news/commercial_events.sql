-- Mergers, acquisitions, funding rounds, layoffs. A reprint has another uuid and tells of the same
-- company, kind and date: the first report stands. A report with a coarser date (a month, a year)
-- is a reprint too where another one of that time names the day.
WITH report AS (
    SELECT
        regexp_replace(lower(organization_website_url), '^https?://|/.*$', '', 'g') AS domain,
        coalesce(permalink, uuid)                AS name,
        kind,
        TRY_CAST(announced_on ->> 'value' AS DATE) AS announced,
        coalesce(announced_on ->> 'precision', 'day') AS precision,
        utc_text(created_at)                     AS created,
        deleted.deleted_at
    FROM (
        SELECT
            uuid, permalink, organization_website_url, announced_on, created_at,
            CASE WHEN acquisition_type = 'merger' THEN 'merger' ELSE 'acquisition' END AS kind
        FROM raw_company_news.acquisitions
        UNION ALL
        SELECT uuid, permalink, organization_website_url, announced_on, created_at, 'funding'
        FROM raw_company_news.funding_rounds
        UNION ALL
        SELECT uuid, permalink, organization_website_url, announced_on, created_at, 'layoffs'
        FROM raw_company_news.layoffs
    ) AS entity
    LEFT JOIN raw_company_news.deleted_entities AS deleted USING (uuid)
),
original AS (
    SELECT
        *,
        CASE precision
            WHEN 'year' THEN date_trunc('year', announced)
            WHEN 'month' THEN date_trunc('month', announced)
            ELSE announced
        END AS first_day,
        CASE precision
            WHEN 'year' THEN date_trunc('year', announced) + INTERVAL 1 YEAR
            WHEN 'month' THEN date_trunc('month', announced) + INTERVAL 1 MONTH
            ELSE announced + INTERVAL 1 DAY
        END AS after
    FROM report
    WHERE domain <> ''
    -- A withdrawn report must not stand for the others of its event.
    QUALIFY row_number() OVER (
        PARTITION BY domain, kind, announced, precision
        ORDER BY deleted_at IS NOT NULL, created, name
    ) = 1
)
SELECT
    domain AS account_key,
    name   AS event_id,
    kind,
    CASE kind WHEN 'layoffs' THEN 4 WHEN 'merger' THEN 4 WHEN 'acquisition' THEN 3 ELSE 2 END AS severity,
    -- The hour is that of the report if it came on the day itself; where only the month is known,
    -- the report's time within it.
    CASE
        WHEN created IS NULL OR created < first_day THEN first_day
        WHEN created >= after THEN CASE WHEN precision = 'day' THEN first_day ELSE after - INTERVAL 1 DAY END
        ELSE created
    END AS occurred_at,
    deleted_at IS NOT NULL AS deleted,
    coalesce(created, first_day) AS known_at
FROM original AS coarse
WHERE NOT EXISTS (
    SELECT 1 FROM original AS fine
    WHERE coarse.precision <> 'day' AND fine.precision = 'day' AND fine.deleted_at IS NULL
        AND fine.domain = coarse.domain AND fine.kind = coarse.kind
        AND fine.announced >= coarse.first_day AND fine.announced < coarse.after
)
