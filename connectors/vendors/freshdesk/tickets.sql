-- The newest word on each ticket: from the usual list, from the trash or from the list of spam. A
-- restored ticket has changed since it was thrown away, so its row in the usual list wins again.
-- Lists tell the present state only; first reply and solution are dated, so that the first reading
-- can be replayed. Tickets without a company share one key and are counted as unmatched.
WITH listed AS (
    SELECT id, company_id, created_at, updated_at, status, priority, tags, stats, FALSE AS deleted
    FROM raw_freshdesk.tickets
    UNION ALL
    SELECT id, company_id, created_at, updated_at, NULL, NULL, NULL, NULL, TRUE
    FROM raw_freshdesk.deleted_tickets
    UNION ALL
    SELECT id, company_id, created_at, updated_at, NULL, NULL, NULL, NULL, TRUE
    FROM raw_freshdesk.spam_tickets
), newest AS (
    SELECT * FROM listed
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY utc_text(updated_at) DESC, deleted DESC) = 1
), rated AS (
    -- 103 is extremely happy, 100 neutral, -103 extremely unhappy: seven steps from 0 to 100.
    SELECT ticket_id, CASE ratings ->> '$.default_question'
        WHEN '103' THEN 100 WHEN '102' THEN 83 WHEN '101' THEN 67 WHEN '100' THEN 50
        WHEN '-101' THEN 33 WHEN '-102' THEN 17 WHEN '-103' THEN 0 END AS csat
    FROM raw_freshdesk.satisfaction_ratings
    QUALIFY row_number() OVER (PARTITION BY ticket_id ORDER BY utc_text(updated_at) DESC, id DESC) = 1
)
SELECT
    coalesce(company_id, 'no company')               AS account_key,
    id                                               AS ticket_id,
    utc_text(created_at)                             AS opened_at,
    utc_text(stats ->> '$.first_responded_at')       AS first_reply_at,
    -- A reopened ticket is not solved, whatever its statistics remember.
    CASE WHEN status IN ('4', '5') THEN utc_text(coalesce(
        stats ->> '$.resolved_at', stats ->> '$.closed_at', updated_at
    )) END                                           AS solved_at,
    CASE status WHEN '2' THEN 'open' WHEN '3' THEN 'pending' WHEN '4' THEN 'resolved' WHEN '5' THEN 'closed' ELSE status END
                                                     AS status,
    CASE priority WHEN '4' THEN 'p1' WHEN '3' THEN 'p2' WHEN '2' THEN 'p3' WHEN '1' THEN 'p4' END
                                                     AS priority,
    coalesce(list_contains(CAST(tags AS JSON)::VARCHAR[], ${escalated_tag}), FALSE)
                                                     AS escalated,
    -- Freshdesk tells when a ticket was last reopened, not how often: 1 means at least once.
    CASE WHEN stats IS NOT NULL THEN CAST((stats ->> '$.reopened_at') IS NOT NULL AS BIGINT) END
                                                     AS reopened,
    csat,
    deleted
FROM newest LEFT JOIN rated ON rated.ticket_id = newest.id
