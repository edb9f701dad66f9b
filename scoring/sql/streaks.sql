-- For how many scored days in a row the triggers of a day have held. A day that was not scored is no
-- day here; one that could not be judged neither counts nor breaks the row.
WITH scored AS (
    SELECT DISTINCT as_of FROM scores.revisions WHERE as_of < {{ day }}
    UNION SELECT {{ day }}
),
ages AS (
    SELECT as_of, row_number() OVER (ORDER BY as_of DESC) AS age FROM scored
    ORDER BY as_of DESC LIMIT {{ most_days }}
),
held AS (
    SELECT account_id, playbook, clears, why, value FROM actions.trigger_days
    WHERE as_of = {{ day }} AND state = 'holds'
        {% if only %}AND account_id IN (FROM {{ only }}){% endif %}

),
in_a_row AS (
    SELECT
        t.account_id, t.playbook, t.as_of, t.state,
        age = row_number() OVER (PARTITION BY t.account_id, t.playbook ORDER BY age) AS unbroken
    FROM actions.trigger_days AS t JOIN ages USING (as_of) SEMI JOIN held USING (account_id, playbook)
)
SELECT h.account_id, h.playbook, h.clears, h.why, h.value, count(*) AS days
FROM held AS h JOIN in_a_row AS r USING (account_id, playbook)
WHERE r.unbroken AND r.state = 'holds'
GROUP BY ALL
ORDER BY h.account_id, h.playbook;
