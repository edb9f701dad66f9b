-- Facts that rules may read, then the first segment and the first stage whose rule holds. A broken
-- pipe must not move an account into another profile, so rules read the last good values.
CREATE OR REPLACE TEMP TABLE profiled AS
WITH facts AS (
    SELECT p.*{{ "," if names }}
{% for name in names %}
        m{{ loop.index }}.value AS {{ name.column }}{{ "," if not loop.last }}
{% endfor %}
    FROM population AS p
{% for name in names %}
    LEFT JOIN (
        SELECT account_id, coalesce(value, held) AS value FROM measured WHERE metric = {{ name.literal }}
    ) AS m{{ loop.index }} USING (account_id)
{% endfor %}
)
SELECT
    account_id, name, parent_id, owner, sales_owner, arr, employees, industry, region, plan,
    started_on, renews_on, desired_outcome,
    CASE{% for rule in segments %}{{ " WHEN " ~ rule.condition ~ " THEN " ~ rule.name }}{% endfor %} END AS segment,
    CASE{% for rule in stages %}{{ " WHEN " ~ rule.condition ~ " THEN " ~ rule.name }}{% endfor %} END AS stage
FROM facts;
