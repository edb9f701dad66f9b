-- How the success manager sees it, 1 to 5.
SELECT
    account_no  AS account_key,
    note_no     AS sentiment_id,
    rating      AS score,
    author,
    note,
    utc(written_at, 'Europe/Berlin') AS given_at,
    valid_until AS expires_on
FROM raw_crm.csm_notes
