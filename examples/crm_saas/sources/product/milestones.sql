-- The way from signing to the first value, for each seat that was bought first. A step counts as
-- reached on the day on which the running total got there; before it, it reads as not reached.
WITH bought AS (
    SELECT
        account_id,
        CAST(min(start_date) AS DATE)    AS started_on,
        arg_min(seat_limit, start_date)  AS seats
    FROM raw_billing.contracts
    GROUP BY account_id
),
so_far AS (
    SELECT
        account_id,
        CAST(date AS DATE)                      AS day,
        sum(add_contact + add_lead) OVER past   AS people,
        sum(create_opportunity) OVER past       AS opportunities,
        sum(win_opportunity) OVER past          AS wins
    FROM raw_product.daily_usage
    WINDOW past AS (PARTITION BY account_id ORDER BY date)
),
reached AS (
    SELECT
        account_id, started_on,
        min(day) FILTER (WHERE people >= 2 * seats)        AS people_on,
        min(day) FILTER (WHERE opportunities >= 2 * seats) AS pipeline_on,
        min(day) FILTER (WHERE wins >= seats)              AS wins_on
    FROM bought LEFT JOIN so_far USING (account_id)
    GROUP BY account_id, started_on
)
SELECT account_id AS account_key, 'people-' || account_id AS milestone_id,
    'Two contacts or leads for each seat' AS name,
    started_on AS planned_at, started_on + 21 AS due_on, people_on AS reached_on
FROM reached
UNION ALL
SELECT account_id, 'pipeline-' || account_id, 'Two opportunities created for each seat',
    started_on, started_on + 30, pipeline_on
FROM reached
UNION ALL
SELECT account_id, 'wins-' || account_id, 'One opportunity won for each seat',
    started_on, started_on + 60, wins_on
FROM reached
