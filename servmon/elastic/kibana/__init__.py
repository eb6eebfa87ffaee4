"""Kibana's side of the mirror: a dashboard, its eight visualisations and five alert rules, and putting them there."""
