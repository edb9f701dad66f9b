"""SurveyMonkey: answers to surveys."""
