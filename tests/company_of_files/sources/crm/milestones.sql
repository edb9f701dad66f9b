-- The steps of onboarding.
SELECT
    account_no   AS account_key,
    milestone_no AS milestone_id,
    milestone    AS name,
    utc(planned_at, 'Europe/Berlin') AS planned_at,
    due          AS due_on,
    reached      AS reached_on
FROM raw_crm.milestones
