-- 25 counters of a day become one row for each event that was used. How many people came is the
-- event login, the only one whose users are known; opportunities carry their value in USD.
-- The export holds use after the last recorded contract (today in company.yaml); those rows lie in
-- the future, and the contract refuses them.
SELECT
    account_id AS account_key,
    date       AS day,
    CASE event WHEN 'active_users' THEN 'login' ELSE event END AS event,
    count,
    CASE event
        WHEN 'win_opportunity' THEN win_opportunity_value
        WHEN 'lose_opportunity' THEN lose_opportunity_value
    END        AS value,
    CASE event WHEN 'active_users' THEN count END AS users
FROM raw_product.daily_usage
UNPIVOT (count FOR event IN (
    active_users,
    search, create_search, edit_search, delete_search,
    create_opportunity, advance_stage, quote, add_competitor,
    win_opportunity, lose_opportunity, disqualify_opportunity,
    add_contact, edit_contact, add_lead, edit_lead, unsub_lead,
    email_lead, call_lead, create_list, email_list, delete_list,
    schedule_meeting, meeting, edit_meeting, cancel_meeting
))
WHERE count > 0
