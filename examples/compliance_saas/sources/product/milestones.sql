-- The way from signing to the first audit-ready evidence. A step counts as reached on the day of
-- the event that completed it; before that day it reads as not reached.
WITH numbered AS (
    SELECT
        customer_id, event_type, local_day(ts) AS day,
        row_number() OVER (PARTITION BY customer_id, event_type ORDER BY ts) AS number
    FROM raw_product.usage_events
),
reached AS (
    SELECT
        customer_id,
        CAST(signup_date AS DATE) AS signed_on,
        min(day) FILTER (WHERE event_type = 'integration_connect' AND number = 2) AS connected_on,
        min(day) FILTER (WHERE event_type = 'monitoring_run' AND number = 5)      AS monitored_on,
        min(day) FILTER (WHERE event_type = 'evidence_upload' AND number = 10)    AS evidence_on,
        min(day) FILTER (WHERE event_type = 'report_view' AND number = 5)         AS reported_on
    FROM raw_customers.customers LEFT JOIN numbered USING (customer_id)
    GROUP BY ALL
)
SELECT customer_id AS account_key, 'connected-' || customer_id AS milestone_id,
    'Two systems connected' AS name,
    signed_on AS planned_at, signed_on + 21 AS due_on, connected_on AS reached_on
FROM reached
UNION ALL
SELECT customer_id, 'monitored-' || customer_id, 'Five monitoring runs',
    signed_on, signed_on + 30, monitored_on
FROM reached
UNION ALL
SELECT customer_id, 'evidence-' || customer_id, 'Ten pieces of evidence',
    signed_on, signed_on + 45, evidence_on
FROM reached
UNION ALL
SELECT customer_id, 'reported-' || customer_id, 'Audit reports read five times',
    signed_on, signed_on + 60, reported_on
FROM reached
