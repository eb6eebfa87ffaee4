-- What was decided of an alert is asked for by the alert, too.

create index alert_decision_alert on alert_decision (alert_id, at) where alert_id is not null;
