-- What the CRM should show of a day: one row an account, a column for each field of the catalogue
-- (contracts/crm_fields.py), values as text. Of a score that an account does not have, `_held` is null.
{% if first %}
CREATE SCHEMA IF NOT EXISTS plan;

{% set known_then %}
known_at <= {{ instant }} AND (superseded_at IS NULL OR superseded_at > {{ instant }})
        AND deleted IS NOT TRUE
{%- endset %}
-- One line without control characters, no longer than its field, in code points; empty is null.
CREATE OR REPLACE TEMP MACRO one_line(given, length) AS nullif(
    trim(left(replace(trim(
        regexp_replace(given, '[[:cntrl:][:space:]\x{80}-\x{9F}]+', ' ', 'g')
    ), '#N/A', 'N/A'), length)), ''  -- which a bulk file takes for nothing
);
-- The same of a text of several lines.
CREATE OR REPLACE TEMP MACRO lines(given, length) AS nullif(
    trim(left(trim(array_to_string(list_transform(
        string_split(regexp_replace(given, '\r\n?', chr(10), 'g'), chr(10)),
        line -> coalesce(one_line(line, length), '')
    ), chr(10)), chr(10)), length)), ''
);

CREATE OR REPLACE TEMP TABLE handoff_facts (
    account_id VARCHAR, opportunity_id VARCHAR,
    {{ facts | map(attribute="name") | join(" VARCHAR, ") }} VARCHAR
);
-- Accounts whose notes are gone: emptied or deleted by sales, or on a deal that was lost.
CREATE OR REPLACE TEMP TABLE handoffs_gone (account_id VARCHAR);
{% if with_handoffs %}
-- The newest deal that was won as new business, else the newest that is open, as known on the day.
INSERT INTO handoff_facts
SELECT
    h.account_id, h.opportunity_id,
{% for fact in facts %}
{% if fact.kind == "number" %}
    round(h.{{ fact.column }})::BIGINT::VARCHAR{{ "," if not loop.last }}
{% elif fact.kind == "date" %}
    h.{{ fact.column }}::DATE::VARCHAR{{ "," if not loop.last }}
{% elif fact.kind == "long_text" %}
    lines(h.{{ fact.column }}, {{ fact.length }}){{ "," if not loop.last }}
{% else %}
    one_line(h.{{ fact.column }}, {{ fact.length }}){{ "," if not loop.last }}
{% endif %}
{% endfor %}
FROM (
    SELECT *, CASE WHEN won_at <= {{ instant }} THEN won_at END AS won_by_then
    FROM signals.handoffs
    WHERE kind = 'new' AND created_at <= {{ instant }} AND {{ known_then }}
) AS h
LEFT JOIN (
    SELECT source, opportunity_id, closed_at FROM signals.opportunities WHERE {{ known_then }}
) AS o USING (source, opportunity_id)
WHERE h.account_id IS NOT NULL
    -- Closed, and not won: lost.
    AND (h.won_by_then IS NOT NULL OR o.closed_at IS NULL OR o.closed_at > {{ instant }})
QUALIFY row_number() OVER (
    PARTITION BY h.account_id
    ORDER BY h.won_by_then DESC NULLS LAST, h.created_at DESC, h.source, h.opportunity_id
) = 1;
INSERT INTO handoffs_gone
SELECT DISTINCT account_id
FROM signals.handoffs AS h
LEFT JOIN (
    SELECT source, opportunity_id, closed_at FROM signals.opportunities WHERE {{ known_then }}
) AS o USING (source, opportunity_id)
WHERE h.account_id IS NOT NULL AND h.kind = 'new' AND h.known_at <= {{ instant }}
    AND account_id NOT IN (SELECT account_id FROM handoff_facts)
    AND (
        coalesce(h.superseded_at, CASE WHEN h.deleted THEN h.known_at END, o.closed_at)
            BETWEEN {{ instant }} - INTERVAL {{ cleared_within_days }} DAY AND {{ instant }}
    );
{% endif %}

{% endif %}
{% macro shown(family) %}
(
    SELECT
        s.account_id, CASE WHEN s.band <> 'unknown' THEN round(s.value)::INTEGER END AS number,
        s.band,
        left(
            CASE
                WHEN s.band = 'unknown' THEN 'Unknown: ' || s.band_reason
{% if family == "upsell" %}
                WHEN r.account_id IS NOT NULL THEN 'Not while the risk is red'
{% endif %}
                WHEN len(t.sentences) > 0 THEN array_to_string(t.sentences, '; ')
            END,
            {{ long_length }}
        ) AS reasons,
        round(100 * s.coverage)::INTEGER::VARCHAR AS coverage,
        s.as_of::VARCHAR AS as_of,
        left(s.scorecard || ' v' || s.version, {{ length }}) AS scorecard,
        (number - b.former)::VARCHAR AS change,
        s.outcome,
        -- An unknown that a broken pipe made holds what the CRM shows; it is no news of the customer.
        s.band = 'unknown' AND s.plumbing AS held
    FROM {{ scores }} AS s
    LEFT JOIN reason_lists AS t ON t.account_id = s.account_id AND t.score = s.score
    LEFT JOIN week_before AS b ON b.account_id = s.account_id AND b.score = s.score
{% if family == "upsell" %}
    LEFT JOIN (
        SELECT account_id FROM {{ scores }} AS s
        WHERE as_of = {{ day }} AND score = 'risk' AND band = 'red'
    ) AS r ON r.account_id = s.account_id
{% endif %}
    WHERE s.as_of = {{ day }} AND {{ "starts_with(s.score, 'health:')" if family == "health"
        else "s.score = '" ~ family ~ "'" }}
)
{% endmacro %}
{{ "CREATE OR REPLACE TABLE plan.desired_accounts AS" if first else "INSERT INTO plan.desired_accounts BY NAME" }}
WITH week_before AS (
    SELECT account_id, score, CASE WHEN band <> 'unknown' THEN round(value)::INTEGER END AS former
    FROM scores.scores
    WHERE as_of = (
        SELECT max(as_of) FROM scores.current_revisions
        WHERE as_of BETWEEN {{ day }} - 14 AND {{ day }} - 7
    ) AND {{ of_part }}
),
-- Scores that an account had until a while ago, and has no more: it left the stage, or wants another
-- outcome. What the CRM shows of them is cleared, or a red handoff would stand there for years.
former AS (
    SELECT account_id, bool_or(score = 'handoff') AS handoff, bool_or(score <> 'handoff') AS health
    FROM scores.scores
    WHERE as_of >= {{ day }} - {{ cleared_within_days }} AND as_of < {{ day }}
        AND (score = 'handoff' OR starts_with(score, 'health:')) AND {{ of_part }}
    GROUP BY account_id
)
SELECT
    {{ day }} AS as_of, account_id,
{% for family in families %}
    {{ family }}.number::VARCHAR AS {{ family }}_score,
{% for part in parts %}
    {{ family }}.{{ part }} AS {{ family }}_{{ part }},
{% endfor %}
{% if family in ("health", "handoff") %}
    coalesce({{ family }}.held, CASE WHEN former.{{ family }} THEN false END) AS {{ family }}_held,
{% else %}
    {{ family }}.held AS {{ family }}_held,
{% endif %}
{% endfor %}
    left(health.outcome, {{ length }}) AS health_outcome,
    facts.* EXCLUDE (account_id, opportunity_id),
    'noted on opportunity ' || facts.opportunity_id AS facts_reasons,
    CASE WHEN facts.account_id IS NOT NULL OR gone.account_id IS NOT NULL THEN false END
        AS facts_held
FROM (
    SELECT account_id FROM {{ scores }} AS s WHERE as_of = {{ day }}
    UNION SELECT account_id FROM handoff_facts WHERE {{ of_part }}
    UNION SELECT account_id FROM handoffs_gone WHERE {{ of_part }}
)
{% for family in families %}
LEFT JOIN {{ shown(family) }} AS {{ family }} USING (account_id)
{% endfor %}
LEFT JOIN former USING (account_id)
LEFT JOIN handoff_facts AS facts USING (account_id)
LEFT JOIN handoffs_gone AS gone USING (account_id);
{% if first %}

-- The same for people: one row an account and field.
CREATE OR REPLACE VIEW plan.desired AS
SELECT as_of, account_id, cell.field, cell.value, cell.why, cell.held
FROM (
    SELECT as_of, account_id, unnest([
{% for name, group in columns %}
        {'field': '{{ name }}', 'value': {{ name }}, 'why': {{ group }}_reasons,
         'held': {{ group }}_held}{{ "," if not loop.last }}
{% endfor %}
    ]) AS cell
    FROM plan.desired_accounts
)
WHERE cell.held IS NOT NULL;
{% endif %}
