-- Two questionnaires in one table; the scale tells them apart.
SELECT
    sha256(lower(email)) AS account_key,
    response_id,
    'nps'        AS kind,
    score,
    10           AS scale,
    role         AS respondent_role,
    utc(TRY_CAST(answered_at AS TIMESTAMP), 'Europe/Berlin') AS responded_at
FROM raw_surveys.nps
UNION ALL
SELECT
    sha256(lower(email)),
    response_id,
    'csat',
    score,
    5,
    role,
    utc(TRY_CAST(answered_at AS TIMESTAMP), 'Europe/Berlin')
FROM raw_surveys.csat
