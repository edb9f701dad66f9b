-- What is kept of a day's triggers, in place of what a former run of the day kept for these accounts
-- and, once the whole day is scored, for those that are no customers any more.
DELETE FROM actions.trigger_days
WHERE as_of = {{ day }} AND (
    account_id IN (SELECT account_id FROM trigger_facts)
    OR (
        EXISTS (SELECT 1 FROM metrics.accounts WHERE as_of = {{ day }})
        AND account_id NOT IN (SELECT account_id FROM metrics.accounts WHERE as_of = {{ day }})
    )
);
INSERT INTO actions.trigger_days BY NAME
SELECT
    {{ day }} AS as_of, account_id, playbook,
    CASE WHEN holds THEN 'holds' ELSE 'undetermined' END AS state,
    clears, CASE WHEN holds THEN why ELSE 'a source is not delivering' END AS why, value
FROM trigger_states
WHERE holds IS NOT false;
