-- What outage detection knows beyond counting failures in a row.

alter table service_endpoint
    -- So many checks are looked at, of which detection_threshold have to fail. Null: they fail in a row.
    add column detection_window int check (detection_window >= 2),
    -- So many degraded checks in a row are an outage. Null: none is.
    add column degraded_outage_after int check (degraded_outage_after >= 1);

-- What happened to servmon itself, or to more than one endpoint: people are owed it as they are a state change.
create table event (
    id uuid primary key,
    seq bigint generated always as identity,
    kind text not null,
    severity severity_type not null,
    message text not null,
    details jsonb not null default '{}' check (jsonb_typeof(details) = 'object'),
    at timestamptz not null,
    -- Null: people are still owed the news.
    processed_at timestamptz
);

create index event_newest on event (at desc, seq desc);
create index event_owed on event (seq) where processed_at is null;

-- Whether an endpoint flapped when it was last said.
create index state_change_flapping on state_change (endpoint_id, at desc, seq desc) where evidence ? 'flapping';
