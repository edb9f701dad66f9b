-- Every measurement of a goal is a version of it. A date that is none is left for the quarantine.
SELECT
    account_no      AS account_key,
    goal_no         AS goal_id,
    goal            AS name,
    target_percent  AS target,
    reached_percent AS progress,
    due             AS due_on,
    utc(TRY_CAST(measured_at AS TIMESTAMP), 'Europe/Berlin') AS measured_at
FROM raw_crm.goals
