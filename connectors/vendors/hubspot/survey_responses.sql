-- Answers to HubSpot's surveys. They hang on a contact; the contact's company is the customer. One
-- whose contact has no company keeps a key of its own, so that it shows up as not linked.
SELECT
    coalesce(
        answer.companies ->> '$[0]',
        contact.companies ->> '$[0]',
        'contact-' || (answer.contacts ->> '$[0]'),
        'response-' || answer.id
    ) AS account_key,
    answer.id AS response_id,
    CASE WHEN upper(answer.properties ->> ${feedback_kind}) IN ('NPS', 'CSAT', 'CES')
         THEN lower(answer.properties ->> ${feedback_kind}) ELSE 'custom' END AS kind,
    text_or_null(answer.properties ->> ${feedback_score}) AS score,
    ${survey_scales} ->> upper(answer.properties ->> ${feedback_kind}) AS scale,
    text_or_null(answer.properties ->> ${feedback_role}) AS respondent_role,
    coalesce(
        from_epoch_ms(TRY_CAST(answer.properties ->> ${feedback_at} AS BIGINT)),
        utc_text(answer.properties ->> ${feedback_at}),
        utc_text(answer.created_at)
    ) AS responded_at,
    coalesce(answer.archived = 'true', false) AS deleted
FROM raw_hubspot.feedback_submissions AS answer
LEFT JOIN raw_hubspot.contacts AS contact ON contact.id = (answer.contacts ->> '$[0]')
WHERE text_or_null(answer.properties ->> ${feedback_score}) IS NOT NULL
