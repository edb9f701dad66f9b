-- The export tells what a ticket is now; with its first reply and its solution dated, the first
-- reading can be replayed from the day it was opened. Later versions are known from their load on,
-- so no known_at is given. Tickets of people without an organization share one key, so that they
-- are counted as unmatched and a deleted one (whose organization may be gone) is still ended.
SELECT
    coalesce(organization_id, 'no organization') AS account_key,
    id                                           AS ticket_id,
    utc_text(created_at)                         AS opened_at,
    -- To the second for messaging, to the minute for the other channels.
    utc_text(created_at) + to_seconds(coalesce(
        TRY_CAST(metric_set ->> '$.reply_time_in_seconds.calendar' AS BIGINT),
        TRY_CAST(metric_set ->> '$.reply_time_in_minutes.calendar' AS BIGINT) * 60
    ))                                           AS first_reply_at,
    -- A reopened ticket is not solved. Metrics may be missing: then the last update is the nearest.
    CASE WHEN status IN ('solved', 'closed')
         THEN utc_text(coalesce(metric_set ->> '$.solved_at', updated_at))
    END                                          AS solved_at,
    status,
    CASE priority WHEN 'urgent' THEN 'p1' WHEN 'high' THEN 'p2' WHEN 'normal' THEN 'p3' WHEN 'low' THEN 'p4' END
                                                 AS priority,
    coalesce(list_contains(CAST(tags AS JSON)::VARCHAR[], ${escalated_tag}), FALSE)
                                                 AS escalated,
    TRY_CAST(metric_set ->> '$.reopens' AS BIGINT) AS reopened,
    CASE satisfaction_rating ->> '$.score' WHEN 'good' THEN 100 WHEN 'bad' THEN 0 END
                                                 AS csat,
    status = 'deleted'                           AS deleted
FROM raw_zendesk.tickets
