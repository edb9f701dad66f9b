-- Every measurement of a goal is a version of it: as we saw it, and before that as the history
-- tells. The value at a moment is the old one of the first change after it.
WITH seen AS (
    SELECT *, utc_text(known_at) AS seen_at, utc_text(created_at) AS created
    FROM raw_salesforce.goals
), changes AS (
    SELECT record, field, old_value, utc_text(created_at) AS changed_at
    FROM raw_salesforce.goal_history
    QUALIFY row_number() OVER (
        PARTITION BY record, field, created_at ORDER BY data_type = 'EntityId' DESC, id
    ) = 1
), moments AS (
    SELECT id, seen_at AS moment FROM seen
    UNION
    SELECT id, created FROM seen
    UNION
    SELECT record, changed_at FROM changes
), next_seen AS (
    SELECT
        moments.id, moment, seen_at, account, name, target, progress, due_on, measured_at,
        is_deleted
    FROM moments
    ASOF JOIN seen ON moments.id = seen.id AND moments.moment <= seen.seen_at
), undone AS (
    SELECT id, moment, field, old_value
    FROM next_seen
    JOIN changes ON record = id AND changed_at > moment AND changed_at <= seen_at
    QUALIFY row_number() OVER (PARTITION BY id, moment, field ORDER BY changed_at) = 1
), former AS (
    SELECT id, moment, json_group_object(field, old_value) AS fields FROM undone GROUP BY ALL
), versions AS (
    SELECT
        next_seen.*,
        json_merge_patch(to_json({
            'account': account, 'name': name, 'target': target, 'progress': progress,
            'due_on': due_on, 'measured_at': measured_at
        }), coalesce(fields, '{}')) AS state
    FROM next_seen
    LEFT JOIN former USING (id, moment)
)
SELECT
    (state ->> 'account')                                         AS account_key,
    id                                                          AS goal_id,
    (state ->> 'name')                                            AS name,
    TRY_CAST((state ->> 'target') AS DOUBLE)                      AS target,
    TRY_CAST((state ->> 'progress') AS DOUBLE)                    AS progress,
    TRY_CAST((state ->> 'due_on') AS DATE)                        AS due_on,
    coalesce(utc_text((state ->> 'measured_at')), moment)         AS measured_at,
    moment = seen_at AND is_deleted = 'true'                    AS deleted,
    moment                                                      AS known_at
FROM versions
