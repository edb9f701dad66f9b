-- The steps of onboarding that the settings name: two date properties of the company for each.
SELECT
    id                                        AS account_key,
    coalesce(text_or_null(properties ->> ${company_number}), id) || '-' || step.name AS milestone_id,
    step.name                                 AS name,
    coalesce(utc_text(dues[len(dues)].timestamp), utc_text(created_at)) AS planned_at,
    coalesce(
        CAST(from_epoch_ms(TRY_CAST(properties ->> step.due AS BIGINT)) AS DATE),
        TRY_CAST(left(properties ->> step.due, 10) AS DATE)
    )                                         AS due_on,
    coalesce(
        CAST(from_epoch_ms(TRY_CAST(properties ->> step.reached AS BIGINT)) AS DATE),
        TRY_CAST(left(properties ->> step.reached, 10) AS DATE)
    )                                         AS reached_on,
    coalesce(archived = 'true', false)        AS deleted
FROM (
    SELECT
        *,
        from_json(history -> step.due, '[{"timestamp":"VARCHAR"}]') AS dues
    FROM (
        SELECT
            *,
            unnest(from_json(
                ${milestones}, '[{"name":"VARCHAR","due":"VARCHAR","reached":"VARCHAR"}]'
            )) AS step
        FROM raw_hubspot.companies
    )
)
WHERE text_or_null(properties ->> step.due) IS NOT NULL
    OR text_or_null(properties ->> step.reached) IS NOT NULL
