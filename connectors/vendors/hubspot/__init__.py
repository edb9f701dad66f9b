"""HubSpot: companies, contacts, deals, tasks, survey answers and owners."""
