-- Facts that rules may read, then the first segment and the first stage whose rule holds. A broken
-- pipe must not move an account into another profile, so rules read the last good values.
CREATE OR REPLACE TEMP TABLE profiled AS
WITH facts AS (
    SELECT p.*{{ "," if names }}
{% for name in names %}
        max(coalesce(m.value, m.held)) FILTER (WHERE m.metric = {{ name.literal }}) AS {{ name.column }}{{ "," if not loop.last }}
{% endfor %}
    FROM population AS p
    LEFT JOIN measured AS m
        ON m.account_id = p.account_id
        AND m.metric IN ({{ names | map(attribute="literal") | join(", ") if names else "NULL" }})
    GROUP BY ALL
)
SELECT
    account_id, name, parent_id, owner, sales_owner, arr, employees, industry, region, plan,
    started_on, renews_on, desired_outcome,
    CASE{% for rule in segments %}{{ " WHEN " ~ rule.condition ~ " THEN " ~ rule.name }}{% endfor %} END AS segment,
    CASE{% for rule in stages %}{{ " WHEN " ~ rule.condition ~ " THEN " ~ rule.name }}{% endfor %} END AS stage
FROM facts;
