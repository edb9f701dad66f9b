-- Against peers of the same segment and stage, and against a benchmark.
{% if peers %}
INSERT INTO measured
SELECT
    m.account_id,
    m.metric || '.peer_percentile',
    CASE
        WHEN m.value IS NOT NULL AND count(m.value) OVER peers >= {{ fewest_peers }}
            THEN round(100 * percent_rank() OVER (
                PARTITION BY p.segment, p.stage, m.metric, m.value IS NULL ORDER BY m.value
            ), 2)
    END AS percentile,
    NULL,
    NULL,
    CASE
        WHEN m.value IS NULL THEN m.state
        WHEN count(m.value) OVER peers < {{ fewest_peers }} THEN 'absent'
        ELSE 'present'
    END,
    CASE
        WHEN m.value IS NULL THEN m.reason
        WHEN count(m.value) OVER peers < {{ fewest_peers }} THEN 'fewer than {{ fewest_peers }} peers'
    END
FROM measured AS m JOIN profiled AS p USING (account_id)
WHERE m.metric IN ({{ peers | join(", ") }})
WINDOW peers AS (PARTITION BY p.segment, p.stage, m.metric);
{% endif %}

{% for benchmark in benchmarks %}
INSERT INTO measured
WITH compared AS (
    SELECT m.*, {{ benchmark.by_segment }} AS benchmark, tidy(100 * m.value / benchmark) AS share
    FROM measured AS m JOIN profiled AS p USING (account_id)
    WHERE m.metric = {{ benchmark.name }}
)
SELECT
    account_id, {{ benchmark.name }} || '.percent_of_benchmark' AS metric,
    CASE WHEN isfinite(share) THEN share END AS value, NULL AS previous, NULL AS held,
    CASE
        WHEN value IS NULL THEN state
        WHEN benchmark IS NULL THEN 'absent'
        WHEN isfinite(share) THEN 'present'
        ELSE 'corrupt'
    END AS state,
    CASE
        WHEN value IS NULL THEN reason
        WHEN benchmark IS NULL THEN 'no benchmark for the segment'
        WHEN NOT isfinite(share) THEN 'no finite number'
    END AS reason
FROM compared;
{% endfor %}
