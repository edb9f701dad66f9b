-- Times may stay text: the contract reads the offset and refuses what is no time.
SELECT
    organization_id AS account_key,
    id              AS ticket_id,
    created_at      AS opened_at,
    first_reply_at,
    solved_at,
    status,
    CASE priority WHEN 'urgent' THEN 'p1' WHEN 'high' THEN 'p2' WHEN 'normal' THEN 'p3' WHEN 'low' THEN 'p4' END
                    AS priority,
    tags LIKE '%escalated%' AS escalated,
    reopens         AS reopened,
    CASE satisfaction_rating WHEN 'good' THEN 100 WHEN 'bad' THEN 0 END AS csat
FROM raw_helpdesk.tickets
