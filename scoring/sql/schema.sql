-- What scoring keeps. Metric values can be computed again; scores are history and keep every revision.
CREATE SCHEMA IF NOT EXISTS metrics;
CREATE SCHEMA IF NOT EXISTS scores;

-- One row for each customer account of a scored day: its facts as of that day and its profile.
CREATE TABLE IF NOT EXISTS metrics.accounts (
    as_of DATE NOT NULL,
    account_id VARCHAR NOT NULL,
    name VARCHAR,
    parent_id VARCHAR,
    owner VARCHAR,
    sales_owner VARCHAR,
    arr DOUBLE,                 -- in the company's currency; null without a rate
    employees BIGINT,
    industry VARCHAR,
    region VARCHAR,
    plan VARCHAR,
    started_on DATE,
    renews_on DATE,
    desired_outcome VARCHAR,
    segment VARCHAR NOT NULL,
    stage VARCHAR NOT NULL
);

-- state: present | zero-filled | absent | stale | corrupt | suspect; reason says why it is not present.
CREATE TABLE IF NOT EXISTS metrics.metric_values (
    as_of DATE NOT NULL,
    account_id VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    value DOUBLE,
    state VARCHAR NOT NULL,
    reason VARCHAR
);

-- Every library that ever made a score, so that any score can be explained later.
CREATE TABLE IF NOT EXISTS scores.libraries (
    library VARCHAR PRIMARY KEY,
    document VARCHAR NOT NULL
);

-- A day that is scored again with another result gets a new revision; nothing is overwritten.
CREATE TABLE IF NOT EXISTS scores.revisions (
    as_of DATE NOT NULL,
    revision INTEGER NOT NULL,
    library VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    run_id VARCHAR,
    scored_at TIMESTAMP,
    accepted BOOLEAN DEFAULT false  -- the checks passed, or somebody said that the change is meant
);

CREATE TABLE IF NOT EXISTS scores.all_scores (
    as_of DATE NOT NULL,
    revision INTEGER NOT NULL,
    account_id VARCHAR NOT NULL,
    score VARCHAR NOT NULL,
    scorecard VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    segment VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    outcome VARCHAR,
    value DECIMAL(6,2),         -- 0 to 100; null when a required metric is missing or nothing is known
    band VARCHAR NOT NULL,
    band_reason VARCHAR,        -- why the band is unknown
    low DECIMAL(6,2),           -- the score with every missing component at 0 ...
    high DECIMAL(6,2),          -- ... and at 100
    coverage DOUBLE NOT NULL,   -- nominal weight present / nominal weight total
    plumbing BOOLEAN NOT NULL,  -- data is missing because a source is stale, suspect or corrupt
    arr DOUBLE
);

-- kind: component | cap | override. The contributions of a score sum exactly to its value.
CREATE TABLE IF NOT EXISTS scores.all_contributions (
    as_of DATE NOT NULL,
    revision INTEGER NOT NULL,
    account_id VARCHAR NOT NULL,
    score VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    metric VARCHAR,
    pillar VARCHAR,
    value DOUBLE,
    state VARCHAR,
    reason VARCHAR,
    weight DOUBLE,              -- nominal, in percent of the score
    effective_weight DOUBLE,    -- after missing data is redistributed, 0 to 1
    points DOUBLE,
    contribution DECIMAL(6,2)
);

CREATE TABLE IF NOT EXISTS scores.all_families (
    as_of DATE NOT NULL,
    revision INTEGER NOT NULL,
    account_id VARCHAR NOT NULL,
    score VARCHAR NOT NULL,
    method VARCHAR NOT NULL,
    members INTEGER NOT NULL,
    value DECIMAL(6,2),
    decisive_account_id VARCHAR
);

-- A revision that the checks held does not replace one that they accepted.
CREATE OR REPLACE VIEW scores.current_revisions AS
SELECT as_of, coalesce(max(revision) FILTER (WHERE accepted), max(revision)) AS revision
FROM scores.revisions GROUP BY as_of;

CREATE OR REPLACE VIEW scores.scores AS
SELECT s.* FROM scores.all_scores AS s JOIN scores.current_revisions USING (as_of, revision);

CREATE OR REPLACE VIEW scores.contributions AS
SELECT c.* FROM scores.all_contributions AS c JOIN scores.current_revisions USING (as_of, revision);

CREATE OR REPLACE VIEW scores.families AS
SELECT f.* FROM scores.all_families AS f JOIN scores.current_revisions USING (as_of, revision);

-- Trends for a segment and for the whole business; an account's trend is its rows in scores.scores.
CREATE OR REPLACE VIEW scores.trends AS
SELECT
    as_of, score, coalesce(segment, 'all') AS segment, band,
    count(*) AS accounts, sum(arr) AS arr, round(avg(value), 1) AS mean_score
FROM scores.scores
GROUP BY GROUPING SETS ((as_of, score, segment, band), (as_of, score, band));
