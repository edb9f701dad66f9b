-- All metrics of {{ table }} in one pass over the rows that their windows can reach.
CREATE OR REPLACE TEMP TABLE aggregated AS
SELECT
    s.account_id,
{% for column in columns %}
    {{ column }}{{ "," if not loop.last }}
{% endfor %}
FROM (
    SELECT
        account_id, source, day, known_at,
{% for column in read %}
        {{ column }}{{ "," if not loop.last }}
{% endfor %}
    FROM signals.{{ table }}
    WHERE account_id IS NOT NULL
        AND day <= {{ last_day }}
{% if first_day %}
        AND day > {{ first_day }}
{% endif %}
        AND known_at <= {{ instant }}
        AND (superseded_at IS NULL OR superseded_at > {{ known_until }})
{% if known_until != instant %}
        AND known_at <= {{ known_until }}
{% endif %}
        AND deleted IS NOT TRUE
) AS s
{% if money %}
LEFT JOIN rates AS r ON r.currency = coalesce(s.currency, {{ currency }})
{% endif %}
GROUP BY s.account_id;
