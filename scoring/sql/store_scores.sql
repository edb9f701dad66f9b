-- A new revision of the day.
INSERT INTO scores.all_scores BY NAME
SELECT
    {{ day }} AS as_of, {{ revision }} AS revision, e.account_id, e.score, c.name AS scorecard,
    c.version, p.segment, p.stage, p.desired_outcome AS outcome, e.value, e.band, e.band_reason,
    e.low, e.high, e.coverage, e.plumbing, p.arr
FROM evaluated_scores AS e
JOIN cards AS c USING (scorecard)
JOIN metrics.accounts AS p ON p.account_id = e.account_id AND p.as_of = {{ day }};

INSERT INTO scores.all_contributions BY NAME
SELECT {{ day }} AS as_of, {{ revision }} AS revision, * FROM evaluated_contributions;

-- Families: a parent with everything below it, by the worst, the mean or the revenue-weighted mean.
INSERT INTO scores.all_families BY NAME
WITH RECURSIVE people AS (
    SELECT account_id, parent_id, arr FROM metrics.accounts WHERE as_of = {{ day }}
),
below(ancestor_id, account_id) AS (
    SELECT account_id, account_id FROM people
    WHERE account_id IN (SELECT parent_id FROM people WHERE parent_id <> account_id)
    UNION
    SELECT b.ancestor_id, p.account_id FROM below AS b JOIN people AS p ON p.parent_id = b.account_id
)
SELECT
    {{ day }} AS as_of, {{ revision }} AS revision, b.ancestor_id AS account_id, e.score,
    {{ method }} AS method, count(*)::INTEGER AS members,
    CASE {{ method }}
        WHEN 'mean' THEN avg(e.value)
        WHEN 'revenue' THEN round(
            sum(e.value * p.arr) / nullif(sum(p.arr) FILTER (WHERE e.value IS NOT NULL), 0), 6
        )
        ELSE CASE WHEN starts_with(e.score, 'risk') THEN max(e.value) ELSE min(e.value) END
    END::DECIMAL(6, 2) AS value,
    CASE
        WHEN starts_with(e.score, 'risk') THEN arg_max(e.account_id, e.value ORDER BY e.account_id)
        ELSE arg_min(e.account_id, e.value ORDER BY e.account_id)
    END AS decisive_account_id
FROM below AS b
JOIN people AS p ON p.account_id = b.account_id
JOIN evaluated_scores AS e ON e.account_id = b.account_id
GROUP BY b.ancestor_id, e.score
HAVING count(*) > 1;
