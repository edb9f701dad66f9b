-- The strongest reasons of every score of a day as sentences. Who set the score by hand comes first,
-- then a cap that moved it; then the components that weigh most. In a risk or an upsell score those
-- are the ones that raise it; in a health or handoff score, where 100 is good, those that keep it from
-- 100. Below half a point they say nothing.
CREATE OR REPLACE TEMP MACRO in_words(x) AS CASE
    WHEN abs(x - round(x)) < 0.05 THEN format('{:,.0f}', round(x) + 0.0)
    ELSE format('{:,.1f}', x)
END;

CREATE OR REPLACE TEMP TABLE reason_lists AS
WITH weighed AS (
    SELECT
        account_id, score, position, kind, value, contribution,
        CASE
            WHEN kind <> 'component' THEN abs(contribution)
            WHEN starts_with(score, 'health') OR score = 'handoff'
                THEN effective_weight * (100 - points)
            ELSE contribution
        END::DOUBLE AS strength
    FROM {{ contributions }}
    WHERE as_of = {{ day }} AND (kind <> 'component' OR state IN ('present', 'zero-filled'))
),
-- Only the strongest of millions become sentences. Whole numbers order them: what leads, then the
-- strength, then the place in the scorecard.
strongest AS (
    SELECT
        account_id, score, arg_max(position, place, {{ most }}) AS positions,
        arg_max(value, place, {{ most }}) AS numbers
    FROM (
        SELECT *, 10000 * (
            CASE
                WHEN kind = 'override' THEN 20000000
                WHEN kind = 'cap' AND contribution <> 0 THEN 10000000
                ELSE 0
            END + round(10000 * strength)::BIGINT
        ) - position AS place
        FROM weighed
        WHERE kind <> 'component' OR strength >= 0.5
    )
    GROUP BY account_id, score
),
-- What caps and people say stands with the account; what components say is the scorecard's.
said AS (
    SELECT account_id, score, map(list(position), list(reason)) AS by_position
    FROM {{ contributions }}
    WHERE as_of = {{ day }} AND kind <> 'component'
    GROUP BY account_id, score
)
SELECT
    n.account_id, n.score,
    list_filter([
{% for rank in range(1, most + 1) %}
        coalesce(
            said.by_position[positions[{{ rank }}]],
            trim(replace(
                replace(t{{ rank }}.because, '{value}', in_words(numbers[{{ rank }}])), '{unit}', t{{ rank }}.unit
            ))
        ){{ "," if not loop.last }}
{% endfor %}
    ], sentence -> sentence IS NOT NULL) AS sentences
FROM strongest AS n
JOIN {{ scores }} AS s ON s.as_of = {{ day }} AND s.account_id = n.account_id AND s.score = n.score
{% for rank in range(1, most + 1) %}
LEFT JOIN reason_texts AS t{{ rank }}
    ON t{{ rank }}.scorecard = s.scorecard AND t{{ rank }}.position = positions[{{ rank }}]
{% endfor %}
LEFT JOIN said ON said.account_id = n.account_id AND said.score = n.score;

CREATE OR REPLACE TEMP VIEW reasons AS
SELECT
    account_id, score, generate_subscripts(sentences, 1) AS rank, unnest(sentences) AS sentence
FROM reason_lists;
