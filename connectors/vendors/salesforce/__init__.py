"""Salesforce: the CRM behind the accounts, read by SOQL over REST and Bulk 2.0."""
