-- Windows over tags and sites, recurring ones, and who is told of them.

alter table maintenance_window
    add column tags text[] not null default '{}',
    add column sites text[] not null default '{}',
    -- RFC 5545, by the clocks of the time zone; the window's times are its first occurrence. Null: it happens once.
    add column rrule text,
    add column timezone text not null default 'UTC',
    -- Local days that are left out.
    add column exdates date[] not null default '{}',
    -- The end of the last occurrence; null: it goes on, or nobody can say yet.
    add column over_at timestamptz,
    -- When the rule was changed last: what was over by then stands in maintenance_occurrence.
    add column rule_from timestamptz,
    -- Channels that are told of it, and how many seconds ahead.
    add column notify text[] not null default '{}',
    add column notify_before int[] not null default '{}',
    -- Hears shortly before the end what is still down; null: the channels of [alert].
    add column creator_channel text,
    -- A deleted window is kept: it counted until then, and people have to hear of it.
    add column deleted_at timestamptz;

-- Occurrences that are not, or no longer, as the window's rule says: moved ends, and those before a change of the rule.
create table maintenance_occurrence (
    window_id uuid not null references maintenance_window (id) on delete cascade,
    -- The local day on which it begins; empty for that of a window that happens once.
    key text not null,
    start_time timestamptz not null,
    end_time timestamptz not null,
    primary key (window_id, key),
    constraint maintenance_occurrence_ends_after_start check (end_time > start_time)
);

create index maintenance_occurrence_end on maintenance_occurrence (end_time);

create trigger maintenance_occurrence_tell after insert or update or delete or truncate on maintenance_occurrence
    for each statement execute function tell_daemons();

-- What people were told of each occurrence, so that nothing is told twice and changes are.
create table maintenance_notice (
    window_id uuid not null references maintenance_window (id) on delete cascade,
    key text not null,
    told jsonb not null check (jsonb_typeof(told) = 'object'),
    primary key (window_id, key)
);
