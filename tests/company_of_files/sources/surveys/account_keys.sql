-- An address may have answered with and without the CRM's number: the number wins. The key is a
-- hash, so that no address enters the warehouse; of `email` only the domain is kept.
SELECT
    sha256(lower(email)) AS account_key,
    max(crm_account_no)  AS account_id,
    lower(email)         AS email
FROM (SELECT email, crm_account_no FROM raw_surveys.nps
      UNION ALL
      SELECT email, crm_account_no FROM raw_surveys.csat)
GROUP BY lower(email)
