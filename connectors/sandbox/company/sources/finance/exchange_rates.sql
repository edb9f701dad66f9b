-- Turned round: what one unit of the other currency was worth in euros.
SELECT
    quote                     AS currency,
    date                      AS day,
    1 / CAST(rate AS DOUBLE)  AS rate
FROM raw_finance.exchange_rates
WHERE base = 'EUR'
