-- Two things that the CRM knows without calling them events: who left, and who names a rival.
SELECT
    account_no                        AS account_key,
    'left-' || contact_no             AS event_id,
    CASE role WHEN 'champion' THEN 'champion_left' ELSE 'sponsor_changed' END AS kind,
    CASE role WHEN 'champion' THEN 5 ELSE 3 END AS severity,
    utc(left_on, 'Europe/Berlin')     AS occurred_at,
    utc(modified_at, 'Europe/Berlin') AS known_at
FROM raw_crm.contacts
WHERE left_on IS NOT NULL AND role IN ('champion', 'sponsor')
UNION ALL
SELECT
    account_no,
    'rival-' || note_no,
    'competitor',
    3,
    utc(written_at, 'Europe/Berlin'),
    utc(written_at, 'Europe/Berlin')
FROM raw_crm.csm_notes
WHERE competitor_mentioned = 'yes'
