-- The hours to the solution are known when they are over; the contract hides solved_at until then,
-- also for tickets that were open on the day of the export. Tickets have a day and no hour, so the
-- hours count from the end of it: a ticket never looks solved too early.
-- Not mapped: topic, for which the canonical table has no column.
SELECT
    customer_id  AS account_key,
    ticket_id,
    created_date AS opened_at,
    local_day_end(CAST(created_date AS DATE)) + to_hours(CAST(resolution_time AS BIGINT))
                 AS solved_at,
    CASE priority
        WHEN 'critical' THEN 'p1' WHEN 'high' THEN 'p2' WHEN 'medium' THEN 'p3' WHEN 'low' THEN 'p4'
    END          AS priority
FROM raw_support.support_tickets
