-- An answer is given when the person is through with it; changed later, it is known from then on.
SELECT
    coalesce(sha256(lower(text_or_null(email))), text_or_null(account_no)) AS account_key,
    id    AS response_id,
    kind,
    CAST(score AS DOUBLE) AS score,
    CAST(scale AS DOUBLE) AS scale,
    role  AS respondent_role,
    utc_text(date_created) + to_seconds(CAST(coalesce(total_time, '0') AS DOUBLE)) AS responded_at,
    utc_text(date_modified) AS known_at
FROM raw_surveymonkey.responses
WHERE response_status = 'completed'
  AND coalesce(collection_mode, 'default') NOT IN ('preview', 'survey_preview')
  AND score IS NOT NULL
  AND coalesce(text_or_null(email), text_or_null(account_no)) IS NOT NULL
