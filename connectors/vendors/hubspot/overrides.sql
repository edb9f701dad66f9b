-- The risk that somebody set by hand on the company, at each moment at which it changed. It does not
-- say who did it: the success manager answers for it. A merged company begins with the merge, as
-- with its accounts; for the companies that went into it an override ends there.
WITH company AS (
    SELECT
        *,
        string_split(text_or_null(properties ->> 'hs_merged_object_ids'), ';') AS former_ids,
        CASE WHEN text_or_null(properties ->> 'hs_merged_object_ids') IS NOT NULL
             THEN utc_text(coalesce(history ->> '$.hs_merged_object_ids[0].timestamp', modified_at))
        END AS merged_at
    FROM raw_hubspot.companies
),
ended AS (
    SELECT id, min(ended_at) AS ended_at
    FROM (
        SELECT unnest(former_ids) AS id, merged_at AS ended_at FROM company
        UNION ALL
        SELECT id, utc_text(archived_at) FROM company WHERE archived = 'true'
    )
    GROUP BY id
),
told AS (
    SELECT
        id,
        coalesce(merged_at, utc_text(created_at)) AS opened_at,
        property,
        text_or_null(properties ->> property) AS value_now,
        coalesce(
            from_json(history -> property, '[{"value":"VARCHAR","timestamp":"VARCHAR"}]'), []
        ) AS changes
    FROM (
        SELECT *, unnest([
            ${company_override_score}, ${company_override_reason}, ${company_override_until},
            ${company_success_manager}
        ]) AS property
        FROM company
    )
),
entry AS (
    SELECT id, property, change.value AS value, utc_text(change.timestamp) AS told_at
    FROM (SELECT id, property, opened_at, unnest(changes) AS change FROM told)
    WHERE utc_text(change.timestamp) > opened_at
    UNION ALL
    -- What held at the beginning: the last value until then, or today's if it never changed since.
    SELECT
        id,
        property,
        CASE WHEN len([c FOR c IN changes IF utc_text(c.timestamp) > opened_at]) = 0 THEN value_now
             ELSE [c.value FOR c IN changes IF utc_text(c.timestamp) <= opened_at][1] END,
        opened_at
    FROM told
    UNION ALL
    SELECT ended.id, NULL, NULL, ended_at FROM ended WHERE ended.id IN (SELECT id FROM company)
),
moment AS (
    SELECT
        id,
        told_at,
        max(value) FILTER (property = ${company_override_score})  AS score,
        max(value) FILTER (property = ${company_override_reason}) AS reason,
        max(value) FILTER (property = ${company_override_until})  AS until,
        max(value) FILTER (property = ${company_success_manager}) AS manager
    FROM entry
    GROUP BY id, told_at
),
version AS (
    -- A property that was cleared has an empty value, not none.
    SELECT
        id,
        told_at,
        CASE WHEN ended_at IS NULL OR told_at < ended_at
            THEN TRY_CAST(last_value(score IGNORE NULLS) OVER sofar AS DOUBLE) END  AS value,
        text_or_null(last_value(reason IGNORE NULLS) OVER sofar)                    AS reason,
        text_or_null(last_value(until IGNORE NULLS) OVER sofar)                     AS until,
        text_or_null(last_value(manager IGNORE NULLS) OVER sofar)                   AS manager
    FROM moment
    LEFT JOIN ended USING (id)
    WINDOW sofar AS (PARTITION BY id ORDER BY told_at)
),
change AS (
    SELECT *, lag(value) OVER (PARTITION BY id ORDER BY told_at) AS former
    FROM version
    QUALIFY row(value, reason, until) IS DISTINCT FROM
        lag(row(value, reason, until)) OVER (PARTITION BY id ORDER BY told_at)
)
SELECT
    change.id                                           AS account_key,
    change.id                                           AS override_id,
    'risk'                                              AS score,
    coalesce(value, former)                             AS value,
    reason,
    coalesce(text_or_null(concat_ws(' ', owner.first_name, owner.last_name)), manager) AS author,
    told_at                                             AS given_at,
    coalesce(
        CAST(from_epoch_ms(TRY_CAST(until AS BIGINT)) AS DATE), TRY_CAST(left(until, 10) AS DATE)
    )                                                   AS expires_on,
    value IS NULL                                       AS deleted,
    told_at                                             AS known_at
FROM change
LEFT JOIN raw_hubspot.owners AS owner ON owner.id = manager
WHERE coalesce(value, former) IS NOT NULL
