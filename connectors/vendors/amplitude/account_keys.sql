-- Whose workspace it is, where an event said so; the connector notes it once for each reading.
SELECT
    group_key                  AS account_key,
    text_or_null(crm_id)       AS account_id,
    text_or_null(domain)       AS domain,
    utc_text(uploaded_at || 'Z') AS known_at
FROM raw_amplitude.events
WHERE crm_id IS NOT NULL OR domain IS NOT NULL
