-- Every version of a company, from the history of its properties: at each moment at which one of
-- them changed, all as they were then. A merged company begins with the merge, because what is
-- older may belong to either one; the companies that went into it end there.
WITH company AS (
    SELECT
        *,
        text_or_null(properties ->> ${company_number}) AS number,
        string_split(text_or_null(properties ->> 'hs_merged_object_ids'), ';') AS former_ids,
        CASE WHEN text_or_null(properties ->> 'hs_merged_object_ids') IS NOT NULL
             THEN utc_text(coalesce(history ->> '$.hs_merged_object_ids[0].timestamp', modified_at))
        END AS merged_at
    FROM raw_hubspot.companies
),
former AS (
    SELECT id AS heir_id, number AS heir, merged_at, unnest(former_ids) AS id FROM company
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
            ${company_status}, ${company_success_manager}, ${company_sales_owner}, ${company_arr},
            ${company_currency}, ${company_plan}, ${company_objective}, ${company_renewal}
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
    SELECT id, NULL, NULL, utc_text(archived_at) FROM company WHERE archived_at IS NOT NULL
    UNION ALL
    SELECT id, NULL, NULL, merged_at FROM former WHERE id IN (SELECT id FROM company)
),
moment AS (
    SELECT
        id,
        told_at,
        max(value) FILTER (property = ${company_status})          AS status,
        max(value) FILTER (property = ${company_success_manager}) AS success_manager,
        max(value) FILTER (property = ${company_sales_owner})     AS sales_owner,
        max(value) FILTER (property = ${company_arr})             AS arr,
        max(value) FILTER (property = ${company_currency})        AS currency,
        max(value) FILTER (property = ${company_plan})            AS plan,
        max(value) FILTER (property = ${company_objective})       AS objective,
        max(value) FILTER (property = ${company_renewal})         AS renewal
    FROM entry
    GROUP BY id, told_at
),
version AS (
    -- A property that was cleared has an empty value, not none.
    SELECT
        id,
        told_at,
        text_or_null(last_value(status IGNORE NULLS) OVER sofar)          AS status,
        text_or_null(last_value(success_manager IGNORE NULLS) OVER sofar) AS success_manager,
        text_or_null(last_value(sales_owner IGNORE NULLS) OVER sofar)     AS sales_owner,
        text_or_null(last_value(arr IGNORE NULLS) OVER sofar)             AS arr,
        text_or_null(last_value(currency IGNORE NULLS) OVER sofar)        AS currency,
        text_or_null(last_value(plan IGNORE NULLS) OVER sofar)            AS plan,
        text_or_null(last_value(objective IGNORE NULLS) OVER sofar)       AS objective,
        text_or_null(last_value(renewal IGNORE NULLS) OVER sofar)         AS renewal
    FROM moment
    WINDOW sofar AS (PARTITION BY id ORDER BY told_at)
),
owner AS (
    SELECT id, text_or_null(concat_ws(' ', first_name, last_name)) AS name FROM raw_hubspot.owners
)
SELECT
    company.number                                            AS account_id,
    'hubspot'                                                 AS crm,
    company.id                                                AS crm_id,
    text_or_null(company.properties ->> ${company_name})      AS name,
    text_or_null(company.properties ->> ${company_domain})    AS domain,
    parent.number                                             AS parent_id,
    coalesce(manager.name, version.success_manager)           AS owner,
    coalesce(seller.name, version.sales_owner)                AS sales_owner,
    version.arr                                               AS arr,
    upper(coalesce(version.currency, text_or_null(${portal_currency}))) AS currency,
    text_or_null(company.properties ->> ${company_employees}) AS employees,
    text_or_null(company.properties ->> ${company_industry})  AS industry,
    text_or_null(company.properties ->> ${company_region})    AS region,
    version.plan                                              AS plan,
    coalesce(
        CAST(from_epoch_ms(TRY_CAST(company.properties ->> ${company_started} AS BIGINT)) AS DATE),
        TRY_CAST(left(company.properties ->> ${company_started}, 10) AS DATE),
        CAST(utc_text(company.created_at) AS DATE)
    )                                                         AS started_on,
    coalesce(
        CAST(from_epoch_ms(TRY_CAST(version.renewal AS BIGINT)) AS DATE),
        TRY_CAST(left(version.renewal, 10) AS DATE)
    )                                                         AS renews_on,
    version.objective                                         AS desired_outcome,
    version.status = ${customer_stage}                        AS is_customer,
    CASE WHEN version.told_at >= former.merged_at THEN former.heir END AS merged_into,
    coalesce(
        company.archived = 'true' AND former.id IS NULL AND version.told_at >= utc_text(company.archived_at),
        false
    )                                                         AS deleted,
    version.told_at                                                AS known_at
FROM company
JOIN version ON version.id = company.id
LEFT JOIN former ON former.id = company.id
LEFT JOIN company AS parent
    ON parent.id = text_or_null(company.properties ->> 'hs_parent_company_id')
LEFT JOIN owner AS manager ON manager.id = version.success_manager
LEFT JOIN owner AS seller ON seller.id = version.sales_owner
WHERE company.number IS NOT NULL
    AND (
        former.id IS NULL
        OR version.told_at < former.merged_at
        OR (version.told_at = former.merged_at AND company.number <> former.heir)
    )
UNION ALL BY NAME
-- Companies that were merged before they were ever read: the heir's history tells their numbers.
SELECT DISTINCT
    former_number                        AS account_id,
    'hubspot'                            AS crm,
    CAST(utc_text(created_at) AS DATE)   AS started_on,
    false                                AS is_customer,
    number                               AS merged_into,
    false                                AS deleted,
    merged_at                            AS known_at
FROM (
    SELECT
        *,
        unnest([
            text_or_null(c.value)
            FOR c IN from_json(history -> ${company_number}, '[{"value":"VARCHAR"}]')
        ]) AS former_number
    FROM company
    WHERE merged_at IS NOT NULL
)
WHERE former_number <> number AND former_number NOT IN (SELECT number FROM company WHERE number IS NOT NULL)
