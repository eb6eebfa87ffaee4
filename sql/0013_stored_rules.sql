-- Alert rules that were made over the API; those of the configuration file stand there alone.

create table alert_rule (
    name text collate "C" primary key,
    -- The order in which they are asked.
    position bigint generated always as identity,
    -- What was given; what is left out is as the settings say.
    rule jsonb not null check (jsonb_typeof(rule) = 'object'),
    created_at timestamptz not null,
    created_by text not null default '',
    updated_at timestamptz not null
);

create trigger alert_rule_tell after insert or update or delete or truncate on alert_rule
    for each statement execute function tell_daemons();
