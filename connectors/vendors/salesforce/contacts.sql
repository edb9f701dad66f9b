-- Roles and departures; names and addresses stay in Salesforce. Of a contact that we first saw
-- long after it was made, we know what was true then: it had not left.
SELECT
    account                                     AS account_key,
    id                                          AS contact_id,
    lower(replace(trim(role), ' ', '_'))        AS role,
    coalesce(local_day_end(TRY_CAST(joined_on AS DATE) - 1), utc_text(created_at)) AS joined_at,
    CAST(NULL AS TIMESTAMP)                     AS left_at,
    false                                       AS deleted,
    utc_text(created_at)                        AS known_at
FROM raw_salesforce.contacts
WHERE backfilled = 'true'
UNION ALL
SELECT
    account,
    id,
    lower(replace(trim(role), ' ', '_')),
    coalesce(local_day_end(TRY_CAST(joined_on AS DATE) - 1), utc_text(created_at)),
    local_day_end(TRY_CAST(left_on AS DATE) - 1),
    is_deleted = 'true',
    utc_text(known_at)
FROM raw_salesforce.contacts
