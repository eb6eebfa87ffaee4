"""WHEN: due times, attempts under one deadline, caps and lanes, the verifying second look."""
