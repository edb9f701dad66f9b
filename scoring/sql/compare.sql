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
SELECT
    m.account_id,
    {{ benchmark.name }} || '.percent_of_benchmark',
    100 * m.value / {{ benchmark.by_segment }},
    NULL,
    CASE WHEN m.value IS NULL THEN m.state WHEN {{ benchmark.by_segment }} IS NULL THEN 'absent' ELSE 'present' END,
    CASE WHEN m.value IS NULL THEN m.reason WHEN {{ benchmark.by_segment }} IS NULL THEN 'no benchmark for the segment' END
FROM measured AS m JOIN profiled AS p USING (account_id)
WHERE m.metric = {{ benchmark.name }};
{% endfor %}
