-- A conversation is a ticket. Only its present state is known; with its first reply and its end
-- dated, the first reading can be replayed from the day it was opened. Later versions are known
-- from their load on, so no known_at is given. Without a company, it belongs to whoever has the
-- domain of the person's address.
SELECT
    coalesce(company_id, '@' || contact_domain, 'no company') AS account_key,
    id                                                        AS ticket_id,
    from_epoch(created_at)                                    AS opened_at,
    from_epoch(statistics ->> '$.first_admin_reply_at')       AS first_reply_at,
    -- A reopened conversation is not solved, whatever its statistics remember.
    CASE WHEN state = 'closed'
         THEN from_epoch(coalesce(statistics ->> '$.last_close_at', updated_at))
    END                                                       AS solved_at,
    state                                                     AS status,
    CASE priority WHEN 'priority' THEN 'p1' WHEN 'not_priority' THEN 'p3' END AS priority,
    coalesce(list_contains(CAST(tags AS JSON)::VARCHAR[], ${escalated_tag}), FALSE) AS escalated,
    TRY_CAST(statistics ->> '$.count_reopens' AS BIGINT)      AS reopened,
    (TRY_CAST(rating AS DOUBLE) - 1) * 25                     AS csat
FROM raw_intercom.conversations
