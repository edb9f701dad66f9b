-- Roles and departures; names and addresses stay in the CRM.
SELECT
    account_no AS account_key,
    contact_no AS contact_id,
    role,
    utc(since, 'Europe/Berlin')       AS joined_at,
    utc(left_on, 'Europe/Berlin')     AS left_at,
    utc(modified_at, 'Europe/Berlin') AS known_at
FROM raw_crm.contacts
