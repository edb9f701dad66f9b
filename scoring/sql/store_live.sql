-- What was scored just now: for the steps that follow, and kept as the day's revision that no list
-- of revisions names.
CREATE OR REPLACE TEMP TABLE live_scores AS
SELECT
    {{ day }} AS as_of, {{ revision }} AS revision, e.account_id, e.score, c.name AS scorecard,
    c.version, p.segment, p.stage, p.desired_outcome AS outcome, e.value, e.band, e.band_reason,
    e.low, e.high, e.coverage, e.plumbing, p.arr
FROM evaluated_scores AS e
JOIN cards AS c USING (scorecard)
JOIN live_accounts AS p ON p.account_id = e.account_id;

CREATE OR REPLACE TEMP TABLE live_contributions AS
SELECT {{ day }} AS as_of, {{ revision }} AS revision, * FROM evaluated_contributions;

DELETE FROM scores.all_scores
WHERE revision = {{ revision }} AND account_id IN (SELECT account_id FROM live_accounts);
DELETE FROM scores.all_contributions
WHERE revision = {{ revision }} AND account_id IN (SELECT account_id FROM live_accounts);
INSERT INTO scores.all_scores BY NAME FROM live_scores;
INSERT INTO scores.all_contributions BY NAME FROM live_contributions;
