-- The key of a person is a hash, so that no address enters the warehouse; of `email` only the
-- domain is kept. A person may have answered with and without the CRM's number: the number wins.
SELECT
    coalesce(sha256(lower(text_or_null(email))), text_or_null(account_no)) AS account_key,
    max(text_or_null(account_no))     AS account_id,
    max(lower(text_or_null(email)))   AS email
FROM raw_surveymonkey.responses
WHERE coalesce(text_or_null(email), text_or_null(account_no)) IS NOT NULL
GROUP BY ALL
