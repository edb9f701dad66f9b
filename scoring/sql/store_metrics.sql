-- What is kept of a day's metrics, in place of what a former run of the day kept.
DELETE FROM metrics.accounts WHERE as_of = {{ day }};
INSERT INTO metrics.accounts BY NAME SELECT {{ day }} AS as_of, * FROM profiled;
DELETE FROM metrics.metric_values WHERE as_of = {{ day }};
INSERT INTO metrics.metric_values BY NAME
SELECT {{ day }} AS as_of, account_id, metric, value, state, reason FROM measured;
