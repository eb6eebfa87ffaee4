-- Whose doing an outage is: the endpoint whose failure cuts this one off. Null: its own.
alter table service_outage add column caused_by text collate "C";
