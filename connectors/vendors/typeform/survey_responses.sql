-- Answers never change once they are submitted.
SELECT
    coalesce(sha256(lower(text_or_null(email))), text_or_null(account_no)) AS account_key,
    token AS response_id,
    kind,
    CAST(score AS DOUBLE) AS score,
    CAST(scale AS DOUBLE) AS scale,
    role  AS respondent_role,
    utc_text(submitted_at) AS responded_at,
    utc_text(submitted_at) AS known_at
FROM raw_typeform.responses
WHERE score IS NOT NULL
  AND coalesce(text_or_null(email), text_or_null(account_no)) IS NOT NULL
